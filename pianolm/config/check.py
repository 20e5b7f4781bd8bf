"""Every problem of a command line or a composed configuration, told at once.

A problem is a sentence that names the key, what was found and what fits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Sweep
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf

from pianolm.config.cross import cross_problems
from pianolm.config.option import expected, fields_of, fits, is_group, is_open
from pianolm.config.renamed import replacement
from pianolm.config.root import VARIANTS, Config, group_names
from pianolm.config.training import STAGE_GROUPS

_WITHOUT_OPTIONS = ("experiment", "debug")
"""Groups of YAML files that have no options of their own."""
_OVERRIDING = ("base", "finetune")
_OPTIONS_OF_RAY = "hydra.launcher.options"
"""The open mapping among Hydra's own keys (`pianolm.config.sweeps`)."""
_LISTED = 20
"""Longest list of options in a sentence that also says which one was probably meant."""


def choices(directories: Iterable[Path]) -> dict[str, list[str]]:
    """The choices of every group: names of the YAML files in the configuration directories."""
    found: dict[str, set[str]] = {group: set() for group in (*group_names(), *_WITHOUT_OPTIONS)}
    for directory in directories:
        for path in sorted(directory.glob("*/*.yaml")):
            found.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(names) for group, names in found.items() if names}


def parse(words: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Overrides of a command line, and the words that are none."""
    overrides, problems = [], []
    parser = OverridesParser.create()
    for word in words:
        try:
            overrides.append(parser.parse_override(word))
        except HydraException:
            problems.append(
                f"{word!r} found, expected key=value; a value with spaces, commas or brackets is quoted twice: "
                "'key=\"a value\"'"
            )
    return overrides, problems


def open_keys(words: Sequence[str]) -> list[str]:
    """The words with `++` where they add keys to an open mapping, for which Hydra wants this form."""
    parsed = [(word, parse([word])[0]) for word in words]
    return [f"++{word}" if found and _adds_keys(found[0]) else word for word, found in parsed]


def _adds_keys(override: Override) -> bool:
    """Whether an override sets a key of an open mapping, or the whole mapping, without a plus."""
    if override.type.name != "CHANGE":
        return False
    if override.key_or_group == _OPTIONS_OF_RAY or override.key_or_group.startswith(f"{_OPTIONS_OF_RAY}."):
        return True
    at: Any = Config
    parts = override.key_or_group.split(".")
    for number, part in enumerate(parts):
        fields = _fields(at, "")
        if part not in fields:
            return False
        at = fields[part][1]
        if is_open(at):
            return number + 1 < len(parts) or isinstance(override.value(), Mapping)
        if not is_group(at):
            return False
    return False


def experiment_choices(overrides: Sequence[Override], directories: Iterable[Path]) -> dict[str, Any]:
    """The choices of groups that the experiments of a command line make, such as `data: mix`."""
    names = [str(one) for o in overrides if o.key_or_group == "experiment" for one in _values(o)]
    paths = [folder / "experiment" / f"{name}.yaml" for folder in directories for name in names]
    files: list[Any] = [OmegaConf.to_container(OmegaConf.load(path)) for path in paths if path.is_file()]
    defaults = [entry for file in files if isinstance(file, Mapping) for entry in file.get("defaults", ())]
    chosen = [item for entry in defaults if isinstance(entry, Mapping) for item in entry.items()]
    return {str(key).removeprefix("override ").removeprefix("/"): choice for key, choice in chosen}


def override_problems(
    overrides: Sequence[Override],
    groups: Mapping[str, Sequence[str]],
    by_experiment: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """A sentence for each override that does not fit, by the override as typed.

    Args:
        overrides: The overrides.
        groups: The choices of every group.
        by_experiment: Choices that the experiment makes where the command line makes none.
    """
    typed = {o.key_or_group: o.value() for o in overrides if o.key_or_group in groups}
    chosen = {**(by_experiment or {}), **typed}
    problems = {}
    for override in overrides:
        sentence = _override_problem(override, groups, chosen)
        if sentence is not None:
            problems[str(override.input_line)] = sentence
    return problems


def _override_problem(
    override: Override, groups: Mapping[str, Sequence[str]], chosen: Mapping[str, Any]
) -> str | None:
    key = override.key_or_group.removeprefix("/").split("@")[0]
    if key.split(".")[0].split("/")[0] == "hydra" or override.is_delete():
        return None
    values = _values(override)
    if key in groups:
        return _choice_problem(key, values, groups[key])
    if (sentence := replacement(key)) is not None:
        return sentence
    found = _find(key, chosen)
    if found is None:
        return unknown_key(key, chosen, groups)
    for value in values:
        sentence = _value_problem(key, found, value)
        if sentence is not None:
            return sentence
    return None


def _values(override: Override) -> list[Any]:
    """The values of an override: those of a sweep over choices, none of a sweep over a range."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return [_plain(one) for one in value.list]
    return [] if isinstance(value, Sweep) else [_plain(value)]


def _plain(value: Any) -> Any:
    """A parsed value as Python containers and strings."""
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return (
        value
        if value is None or isinstance(value, bool | int | float)
        else str(getattr(value, "text", value))
    )


def _choice_problem(group: str, values: Iterable[Any], known: Sequence[str]) -> str | None:
    for value in values:
        if isinstance(value, Mapping) or value is None or value in known:
            continue
        if isinstance(value, list) and all(one in known for one in value):
            continue
        return f"{group}={value} found, expected one of {', '.join(known)}{_hint(str(value), known)}"
    return None


def _fields(hint: Any, group: str, choice: Any = None) -> dict[str, Any]:
    """Fields of a group; of a group with variants those of its choice, of all where the choice is a user's own."""
    if group not in VARIANTS:
        return fields_of(hint)
    variants = VARIANTS[group][1]
    classes = [variants[choice]] if choice in variants else list(variants.values())
    return {name: found for cls in classes for name, found in fields_of(cls).items()}


_DEFAULT_CHOICE = {"data": "demo", "velvq": "segment", "evaluate": "roundtrip"}


def _find(key: str, chosen: Mapping[str, Any]) -> Any:
    """Field and type of an option by its key; None where there is no such option."""
    at: Any = (None, Config)
    for number, part in enumerate(key.split(".")):
        group = key.split(".")[0] if number == 1 else ""
        if is_open(at[1]):
            return (None, Any)
        if not is_group(at[1]):
            return None
        fields = _fields(at[1], group, chosen.get(group, _DEFAULT_CHOICE.get(group)))
        if part not in fields:
            return None
        at = fields[part]
    return at


def _value_problem(key: str, found: tuple[Any, Any], value: Any) -> str | None:
    field, hint = found
    if field is None:
        return None
    if is_group(hint):
        return (
            None
            if isinstance(value, Mapping)
            else f"{key}={value} found, expected options, such as {key}.<option>=…"
        )
    if fits(field, hint, value):
        return None
    return f"{key}={'null' if value is None else value} found, expected {expected(field, hint)}"


def unknown_key(key: str, chosen: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> str:
    """Says which options exist where an unknown one was given."""
    parent, _, name = key.rpartition(".")
    while parent and _find(parent, chosen) is None:
        parent, _, name = parent.rpartition(".")
    if parent in VARIANTS:
        having = [f"{parent}={one}" for one, cls in VARIANTS[parent][1].items() if name in fields_of(cls)]
        if having:
            choice = chosen.get(parent, _DEFAULT_CHOICE.get(parent))
            return f"no option {key!r} with {parent}={choice}; it belongs to {', '.join(having)}: add one of these"
    if parent:
        known = (
            sorted(_fields(_find(parent, chosen)[1], parent, chosen.get(parent, _DEFAULT_CHOICE.get(parent))))
            if is_group(_find(parent, chosen)[1])
            else []
        )
    else:
        known = sorted({*fields_of(Config), *groups})
    of_no_group = parent and name in fields_of(Config)
    close = f"; did you mean {name}=…, which belongs to no group?" if of_no_group else _hint(name, known)
    if close and len(known) > _LISTED:
        return f"no option {key!r}{close}"
    where = f"{parent} has" if parent else "there are"
    return f"no option {key!r}: {where} {', '.join(known) or 'no options'}{close}"


def _hint(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def config_problems(cfg: Mapping[str, Any]) -> list[str]:
    """Every problem of a composed configuration, resolved to plain containers."""
    single = list(_group_problems("", Config, cfg))
    inherited = {
        f"{stage}.{sentence}"
        for stage in _OVERRIDING
        for sentence in single
        if sentence.split(".")[0] in STAGE_GROUPS
    }
    return [sentence for sentence in single if sentence not in inherited] or cross_problems(cfg)


def _group_problems(prefix: str, hint: Any, values: Mapping[str, Any]) -> Iterable[str]:
    group = prefix.removesuffix(".")
    choice = values.get(VARIANTS[group][0]) if group in VARIANTS else None
    fields = _fields(hint, group, choice)
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in fields:
            yield unknown_key(key, {group: choice}, {})
        elif is_group(fields[name][1]) and isinstance(value, Mapping):
            yield from _group_problems(f"{key}.", fields[name][1], value)
        elif value == MISSING:
            yield f"{key} has no value; give one with {key}=…"
        elif (sentence := _value_problem(key, fields[name], value)) is not None:
            yield sentence
