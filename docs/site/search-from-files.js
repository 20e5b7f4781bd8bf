// Search on pages opened as files. Browsers start no Worker there, so its script runs in a hidden frame instead.
"use strict";
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.ready = new Promise((resolve) => {
        frame.addEventListener("load", () => {
          const inside = frame.contentWindow;
          inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", {data}));
          const script = frame.contentDocument.createElement("script");
          script.src = url;
          script.addEventListener("load", () => resolve(inside));
          frame.contentDocument.body.append(script);
        }, {once: true});
      });
      document.body.append(frame);  // the theme starts it at the end of the body
    }
    postMessage(data) {
      this.ready.then((inside) => inside.dispatchEvent(new MessageEvent("message", {data})));
    }
  };
}
