"""The documentation site: pages stand where links of the checkout look for them, and nothing comes from the network.

`make lint` builds it with `--strict`, which checks every link; here it is opened in a browser.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.site.hooks import beside_paths, experiment_pages, outside_addresses, page_paths

from .browser import Browser
from .markdown import ROOT

SEARCH = """new Promise(done => {
  document.querySelector("[data-md-toggle=search]").click();
  const field = document.querySelector(".md-search__input");
  field.value = "optuna";
  const results = document.querySelector(".md-search-result");
  setInterval(() => field.dispatchEvent(new Event("keyup")), 200);
  new MutationObserver(() => results.querySelector("a") && done(results.innerText))
    .observe(results, {subtree: true, childList: true});
})"""

FOUND = {
    "control_share": "docs/controls.html",
    "share": "docs/controls.html",  # a part of it
    "accumulate": "docs/options/trainer.html",  # of accumulate_grad_batches
    "data=folder": "docs/your-music.html",
    "data.root": "docs/options/data.html",
    "top_p": "docs/options/generate.html",
    "render_dynamics": "docs/python/piano-lm.html",
    "bits_per_note": "docs/metrics.html",
    "inpainting": "docs/fill.html",  # a word that the page does not have
}
"""Pages that a search for some words shows."""


def _pages(nav: Any) -> Iterator[str]:
    """The pages of a navigation, whose parts and pages may have titles."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _pages(part)


def test_every_page_of_the_checkout_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\ntheme:")[0]
    named = set(_pages(yaml.safe_load(text)["nav"]))
    assert named | set(experiment_pages(page_paths())) == set(page_paths())
    assert {"README.md", "docs/listen/README.md", "experiments/velvq/README.md"} <= set(page_paths())


def test_what_pages_show_lies_beside_them() -> None:
    beside = beside_paths(page_paths())
    assert {"docs/bar.png", "docs/listen/721.mp3", "experiments/box-model/curve.png"} <= set(beside)
    assert not [path for path in beside if path.endswith((".py", ".md", ".jsonl"))]


def test_what_a_page_would_load_from_elsewhere_is_found() -> None:
    html = """<link rel="stylesheet" href="https://a.org/x.css"><script src='//b.org/x.js'></script>
    <a href="https://c.org">to click on</a><img alt="" src=picture.png><img src=http://d.org/x.png>
    <script>const address = "https://e.org";</script><link href="assets/main.css" rel="stylesheet">"""
    assert outside_addresses(html) == ["https://a.org/x.css", "//b.org/x.js", "http://d.org/x.png"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.slow
def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        assert outside_addresses(page.read_text("utf-8")) == [], page


@pytest.mark.slow
def test_the_site_opens_as_files_and_searches(site: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        browser.open(site / "index.html")
        assert "Values chosen by Optuna" in browser.run(SEARCH)
        assert all(address.startswith("file:") for address in browser.requests())
        assert browser.complaints() == []


@pytest.mark.slow
def test_the_navigation_shows_every_page_of_a_section(site: Path) -> None:
    page = (site / "docs" / "fill.html").read_text("utf-8")
    for title in (
        "Card of the dynamics model",
        "Card of the beat tracker",
    ):  # index pages, but not of a section
        assert re.search(rf">\s*{title}\s*<", page), title
    assert (site / "pianolm" / "models" / "dynamics" / "index.html").is_file()


@pytest.mark.slow
def test_a_search_finds_parts_of_names_and_words_that_others_use(site: Path) -> None:
    if (node := shutil.which("node")) is None:
        pytest.skip("no node is installed")
    command = [node, str(Path(__file__).with_name("site_search.js")), str(site), *FOUND]
    pages = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for (words, page), found in zip(FOUND.items(), pages, strict=True):
        assert page in found[:5], f"{words}: {found}"
