"""Hooks of mkdocs: the site mirrors the checkout, so that relative links between pages are the same in both.

Pages are the Markdown files at the top level, in docs/, experiments/ and pianolm/models/; what they show or link to is
copied to the same place. The built site loads nothing from the network, which is checked, and opens as files, too.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation, Section
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
_PAGES = ("*.md", "docs/**/*.md", "experiments/**/README.md", "pianolm/models/*/README.md")
_BESIDE = (".css", ".csv", ".html", ".js", ".mid", ".mp3", ".png", ".txt")
_EXPERIMENTS = "Experiments"
_BOOST = {
    "docs/answers.md": 3.0,
    "docs/keys.md": 0.3,
    "docs/your-music.md": 2.0,
    "docs/options/README.md": 1.0,
    "docs/options/": 2.0,
    "experiments/": 0.3,
}
"""Factors in the order of what a search finds, by the beginnings of paths; the first that fits holds."""
_SYNONYMS = {
    "docs/answers.md": ["FAQ"],
    "docs/artifacts.md": ["cache", "hash"],
    "docs/beats.md": ["beat tracking", "downbeats", "tempo estimation"],
    "docs/cluster.md": ["distributed", "multi-GPU", "multi-node"],
    "docs/configuration.md": ["settings", "hyperparameters"],
    "docs/controls.md": ["conditioning", "volume", "attributes"],
    "docs/data.md": ["dataset", "corpus"],
    "docs/dynamics.md": ["expressive performance", "rendering", "humanize"],
    "docs/extending.md": ["plugin", "custom dataset"],
    "docs/files.md": ["output", "results", "checkpoints"],
    "docs/fill.md": ["inpainting", "infilling"],
    "docs/install.md": ["setup", "Docker", "pip"],
    "docs/keys.md": ["migration", "renamed"],
    "docs/metrics.md": ["evaluation", "perplexity"],
    "docs/other-programs.md": ["Hugging Face", "export", "upload"],
    "docs/sampling.md": ["decoding", "nucleus"],
    "docs/sweeps.md": ["hyperparameter search", "grid search", "Optuna"],
    "docs/tokens.md": ["tokenization", "encoding", "vocabulary"],
    "docs/tour.md": ["overview", "pipeline", "walkthrough"],
    "docs/training.md": ["checkpoint", "resume", "GPU", "logging"],
    "docs/velvq.md": ["VQ-VAE", "vector quantization"],
    "docs/your-music.md": ["dataset", "fine-tune", "custom data"],
}
"""Words under which a search finds a page that has others."""
_LOADING = re.compile(
    r"<(?:script|link|img|iframe|audio|source)\b[^>]*?\s(?:src|href|srcset)=[\"']?((?:https?:)?//[^\"'\s>]*)"
)
_log = logging.getLogger("mkdocs.plugins.site")  # warnings there end a strict build


def page_paths(root: Path = ROOT) -> list[str]:
    """The pages of the site, relative to the checkout."""
    return sorted(path.relative_to(root).as_posix() for pattern in _PAGES for path in root.glob(pattern))


def beside_paths(pages: list[str], root: Path = ROOT) -> list[str]:
    """Pictures, sound and tables in the folders of pages and below them, but not at the top level."""
    folders = {Path(page).parent for page in pages} - {Path()}
    files = {path for folder in folders for path in (root / folder).rglob("*") if path.suffix in _BESIDE}
    files -= set((root / "docs" / "site").glob("*.html"))  # the template of docs/bars.html
    return sorted(path.relative_to(root).as_posix() for path in files)


def experiment_pages(pages: list[str]) -> list[str]:
    """The book of experiments, the experiments, the benchmarks."""
    found = [page for page in pages if page.startswith("experiments/")]
    return sorted(found, key=lambda page: (page.count("/"), page))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the experiments in the navigation."""
    pages = experiment_pages(page_paths())
    for entry in config.nav or []:
        if _EXPERIMENTS in entry:
            entry[_EXPERIMENTS] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the theme, and those of the checkout at their own paths."""
    of_theme = [file for file in files if file.src_dir != config.docs_dir]
    pages = page_paths()
    ours = [
        File.generated(config, path, abs_src_path=str(ROOT / path)) for path in [*pages, *beside_paths(pages)]
    ]
    for file in ours:
        folder = Path(file.src_uri).parent
        if file.src_uri.endswith("README.md") and (ROOT / folder / "index.html").is_file():
            file.dest_uri = (folder / "README.html").as_posix()  # index.html is a page of its own there
    return Files([*of_theme, *ours])


def outside_addresses(html: str) -> list[str]:
    """Addresses of other sites that a page would load by itself; links to click on are none."""
    return _LOADING.findall(html)


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> None:
    """Puts the page of bars, which is no Markdown, behind the tour; sections open what comes first in them."""
    tour = next(page for page in nav.pages if page.file.src_uri == "docs/tour.md")
    assert isinstance(tour.parent, Section)
    link = Link("Hear a bar", "docs/bars.html")
    link.parent = tour.parent
    tour.parent.children.insert(tour.parent.children.index(tour) + 1, link)
    for page in nav.pages:
        if isinstance(page.parent, Section) and page is not page.parent.children[0]:
            address = page.file.dest_uri
            # else the theme opens a README in place of the section
            page.file.name = Path(page.file.src_uri).stem
            page.file.dest_uri = address


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Searches find options before texts, and documentation before experiments.

    The table of the book takes the width of its contents, too.
    """
    path = page.file.src_uri
    page.meta["tags"] = _SYNONYMS.get(path, [])
    page.meta["search"] = {
        "boost": next((boost for part, boost in _BOOST.items() if path.startswith(part)), 1.0)
    }
    if path == "experiments/README.md":
        page.meta["hide"] = ["toc"]


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warns where a page would load something from the network."""
    for address in outside_addresses(output):
        _log.warning("%s loads %s; the site must do without the network", page.file.src_uri, address)
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """Writes the search index once more as a script, which is how a page opened as a file reads it."""
    folder = Path(config.site_dir) / "search"
    index = (folder / "search_index.json").read_text("utf-8")
    (folder / "search_index.js").write_text(f"var __index = {index}", "utf-8")
