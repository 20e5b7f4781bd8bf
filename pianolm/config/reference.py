"""Reference pages in docs/ that are made from the code: `python -m pianolm.config.reference` writes them anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from pianolm.config.check import choices
from pianolm.config.help import option_text, options
from pianolm.config.option import expected, sentence_of
from pianolm.config.renamed import REMOVED, RENAMED
from pianolm.config.root import VARIANTS
from pianolm.config.training import STAGE_GROUPS

_ROOT = Path(__file__).resolve().parents[2]

_OPTIONS = """\
# Options

Every option with its default, the values that fit, and what it does; `python -m pianolm.run --help` prints the same.
Change a value with `key=value` and a group with `group=choice`; [configuration.md](configuration.md) says how groups
work together. Where a default depends on the choice of a group, the first choice that has the option is shown.

This page is made from the dataclasses in `pianolm/config/`; `python -m pianolm.config.reference` writes it again.
"""

_KEYS = """\
# Old and new keys

An old key on the command line is an error that names the new one. The keys of `base` and `finetune` changed in the same
way: `finetune.learning_rate` is now `finetune.optimizer.lr`, and `base.max_steps` is `base.trainer.max_steps`.

This page is made from `pianolm/config/renamed.py`; `python -m pianolm.config.reference` writes it again.
"""


def options_page(config_dir: Path) -> str:
    """docs/options.md: the groups and their choices, then a table of options for each group.

    Args:
        config_dir: Directory of the YAML files.
    """
    names = choices([config_dir])
    by_group = groupby(options(config_dir), key=lambda row: row[0].partition(".")[0] if "." in row[0] else "")
    tables: dict[str, list[str]] = {}
    for group, rows in by_group:
        tables.setdefault(group if group or not tables else "", []).extend(map(_row, rows))
    parts = [_OPTIONS, *_table(("group", "choices"), ((f"`{g}`", _codes(c)) for g, c in names.items()))]
    for group, lines in tables.items():
        head = _table(("option", "default", "what fits", "what it does"), ())
        parts += ["", f"## {group or 'Without a group'}", "", *_introduction(group, names), *head, *lines]
    return _joined(parts)


def _introduction(group: str, names: dict[str, list[str]]) -> list[str]:
    if group in VARIANTS:
        return [f"`{group}=…` chooses; each choice has those of these options that concern it.", ""]
    if group in STAGE_GROUPS:
        return [f"`base.{group}.*` and `finetune.{group}.*` override these for one stage.", ""]
    if group in ("callbacks", "logger"):
        return [f"A mapping of `_target_` entries; the choices are {_codes(names[group])}.", ""]
    return []


def _row(row: tuple[str, Any, Any, Any]) -> str:
    key, field, hint, value = row
    return _cells(f"`{key}`", f"`{option_text(value)}`", expected(field, hint), sentence_of(field))


def keys_page() -> str:
    """docs/keys.md: a table of renamed keys and one of removed ones."""
    renamed = _table(("old", "new"), ((f"`{old}`", f"`{new}`") for old, new in sorted(RENAMED.items())))
    removed = _table(("gone", "because"), ((f"`{old}`", why) for old, why in sorted(REMOVED.items())))
    return _joined([_KEYS, *renamed, "", *removed])


def _joined(parts: Iterable[str]) -> str:
    text = "\n".join(parts) + "\n"
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield _cells(*head)
    yield "|" + "---|" * len(head)
    for row in rows:
        yield _cells(*row)


def _cells(*texts: str) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def write(root: Path = _ROOT) -> None:
    """Writes both pages to the docs folder of a checkout."""
    (root / "docs" / "options.md").write_text(options_page(root / "conf"), "utf-8")
    (root / "docs" / "keys.md").write_text(keys_page(), "utf-8")


if __name__ == "__main__":
    write()
