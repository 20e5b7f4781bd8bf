"""The pages of docs/ that are made from the configuration's dataclasses are those that the dataclasses give."""

from __future__ import annotations

from pianolm.config.help import options
from pianolm.config.reference import keys_page, options_page
from pianolm.config.renamed import REMOVED, RENAMED
from pianolm.run import CONFIG_DIR
from tests.markdown import ROOT

HINT = "write it again with `python -m pianolm.config.reference`"


def test_the_page_of_options_is_up_to_date() -> None:
    assert (ROOT / "docs" / "options.md").read_text("utf-8") == options_page(CONFIG_DIR), HINT


def test_the_page_of_keys_is_up_to_date() -> None:
    assert (ROOT / "docs" / "keys.md").read_text("utf-8") == keys_page(), HINT


def test_every_option_and_every_old_key_is_listed() -> None:
    page, keys = options_page(CONFIG_DIR), keys_page()
    assert all(f"| `{key}` |" in page for key, *_ in options(CONFIG_DIR))
    assert all(f"| `{key}` |" in keys for key in {**RENAMED, **REMOVED})
