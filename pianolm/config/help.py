"""The text of `--help`: every group with its choices, and every option with its sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from omegaconf import MISSING, OmegaConf

from pianolm.config.check import choices
from pianolm.config.option import default_of, expected, fields_of, is_group, sentence_of
from pianolm.config.root import VARIANTS, Config
from pianolm.config.training import STAGE_GROUPS

_WIDTH = 110
_USAGE = """\
pianolm: an experiment framework for piano language models

  python -m pianolm.run stage=<stage> key=value group=choice ...
  python -m pianolm.run -m ...          a sweep: one job for each combination of comma-separated values
  python -m pianolm.run --config-dir DIR ...   adds your own YAML files, in folders named like the groups
  python -m pianolm.run --version
  python -m pianolm.run --hydra-help    flags of Hydra
"""


def help_text(config_dir: Path) -> str:
    """The whole text.

    Args:
        config_dir: Directory of the YAML files.
    """
    lines = [_USAGE, "Groups and their choices"]
    for group, names in choices([config_dir]).items():
        lines.append(f"  {group:<12}{' | '.join(names)}")
    lines += ["", "Options (default: what fits)"]
    for key, field, hint, value in options(config_dir):
        lines.append(f"  {key}={option_text(value)}  ({expected(field, hint)})")
        lines.append(fill(sentence_of(field), _WIDTH, initial_indent="      ", subsequent_indent="      "))
    stages = ", ".join(f"{stage}.{group}.*" for stage in ("base", "finetune") for group in STAGE_GROUPS)
    lines.append(f"\n  {stages}: override the groups for one stage")
    return "\n".join(lines)


def options(config_dir: Path) -> Iterator[tuple[str, Any, Any, Any]]:
    """Key, field, type and default of every option; those of base and finetune that repeat a group are left out."""
    for name, (field, hint) in fields_of(Config).items():
        if not is_group(hint):
            yield name, field, hint, default_of(field)
        elif name in VARIANTS:
            yield from _variants(name, config_dir)
        else:
            defaults = _first_defaults(config_dir / name)
            repeated = STAGE_GROUPS if name in ("base", "finetune") else {}
            yield from _options(name, hint, defaults, frozenset(repeated))


def _variants(group: str, config_dir: Path) -> Iterator[tuple[str, Any, Any, Any]]:
    """Options of a group whose options depend on a choice; each is told once, with the first choice that has it."""
    told: set[str] = set()
    for choice, cls in VARIANTS[group][1].items():
        defaults = _read(config_dir / group / f"{choice}.yaml")
        for key, field, hint, value in _options(group, cls, defaults, frozenset()):
            if key not in told:
                told.add(key)
                yield key, field, hint, value


def _options(
    prefix: str, cls: type, defaults: dict[str, Any], left_out: frozenset[str]
) -> Iterator[tuple[str, Any, Any, Any]]:
    for name, (field, hint) in fields_of(cls).items():
        key = f"{prefix}.{name}"
        if is_group(hint):
            if name not in left_out:
                yield from _options(key, hint, defaults.get(name) or {}, frozenset())
        else:
            yield key, field, hint, defaults.get(name, default_of(field))


def _first_defaults(folder: Path) -> dict[str, Any]:
    """Values of the choice that config.yaml takes."""
    composed = OmegaConf.to_container(OmegaConf.load(folder.parent / "config.yaml"), resolve=False)
    assert isinstance(composed, dict)
    chosen = {k: v for entry in composed["defaults"] if isinstance(entry, dict) for k, v in entry.items()}
    return _read(folder / f"{chosen.get(folder.name)}.yaml")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def option_text(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value == MISSING:
        return "?"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
