"""The page of renamed and removed options, `docs/keys.md`, from `pianolm/config/renamed.py`."""

from __future__ import annotations

from pathlib import Path

from pianolm.config.renamed import REMOVED, RENAMED

_HEAD = """\
# Old and new keys

An old key on the command line is an error that names the new one. The keys of `base` and `finetune` changed in the same
way: `finetune.learning_rate` is now `finetune.optimizer.lr`, and `base.max_steps` is `base.trainer.max_steps`.

This page is made from `pianolm/config/renamed.py`; `python -m docs.site.write` writes it again.
"""


def keys_page() -> str:
    """docs/keys.md: a table of renamed keys and one of removed ones."""
    renamed = (f"| `{old}` | `{new}` |" for old, new in sorted(RENAMED.items()))
    removed = (f"| `{old}` | {why} |" for old, why in sorted(REMOVED.items()))
    tables = ["| old | new |", "|---|---|", *renamed, "", "| gone | because |", "|---|---|", *removed]
    return "\n".join([_HEAD, *tables]) + "\n"


def write(root: Path) -> None:
    """Writes the page of a checkout."""
    (root / "docs" / "keys.md").write_text(keys_page(), "utf-8")
