// Asks the search worker of a built site: node site_search.js SITE WORDS… prints a JSON list of pages for each.
"use strict";
const fs = require("fs"), path = require("path"), vm = require("vm");
const [site, ...queries] = process.argv.slice(2);
const folder = path.join(site, "assets/javascripts/workers");
const script = fs.readdirSync(folder).find((name) => /^search\..*\.js$/.test(name));
const index = JSON.parse(fs.readFileSync(path.join(site, "search/search_index.json")));
const SETUP = 0, QUERY = 2;  // types of messages
let ask, answer;
const worker = {
  addEventListener: (type, listener) => { ask = listener; },
  postMessage: (message) => { answer = message; },
  location: {href: "file:///workers/search.js"},
  importScripts() {},
  console,
  URL,
};
worker.self = worker;
vm.runInContext(fs.readFileSync(path.join(folder, script), "utf8"), vm.createContext(worker));
(async () => {
  await ask({data: {type: SETUP, data: {...index, options: {suggest: false}}}});
  const found = [];
  for (const words of queries) {
    await ask({data: {type: QUERY, data: words}});
    found.push(answer.data.items.map(([first]) => first.location.split("#")[0]));
  }
  console.log(JSON.stringify(found));
})();
