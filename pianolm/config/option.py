"""One option of the configuration: a dataclass field with a sentence, a range, and the check of a value."""

from __future__ import annotations

import dataclasses
import math
import pkgutil
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, Union

_HELP, _LIMITS = "help", "limits"
_WORDS = {"at_least": "of at least", "above": "above", "at_most": "at most", "below": "below"}


def option(
    default: Any,
    sentence: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A field of a configuration dataclass.

    Args:
        default: Default value; `omegaconf.MISSING` where a YAML file must give one.
        sentence: What the option does, shown by `--help`.
        at_least: Smallest number allowed.
        above: Numbers must be larger than this.
        at_most: Largest number allowed.
        below: Numbers must be smaller than this.
        choices: Strings allowed.
    """
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "below": below, "choices": choices}
    metadata = {_HELP: sentence, _LIMITS: {k: v for k, v in limits.items() if v is not None}}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: default.copy(), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def modules(folder: str, but: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of the modules in a folder of pianolm, except those of `but`.

    The folder is read instead of imported, so that a new file is a valid choice at once and nothing needs torch.

    Args:
        folder: Relative to the package, such as `data/sources`.
        but: Names of modules left out.
    """
    path = Path(__file__).resolve().parents[1] / folder
    return tuple(sorted(m.name for m in pkgutil.iter_modules([str(path)]) if m.name not in but))


def sentence_of(field: Field[Any]) -> str:
    """The sentence of an option, empty for a nested group."""
    return str(field.metadata.get(_HELP, ""))


def default_of(field: Field[Any]) -> Any:
    """The default value of an option."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def fields_of(cls: type) -> dict[str, tuple[Field[Any], Any]]:
    """Field and resolved type of every option of a dataclass, by name."""
    hints = typing.get_type_hints(cls)
    return {field.name: (field, hints[field.name]) for field in dataclasses.fields(cls)}


def is_group(hint: Any) -> bool:
    """Whether a field holds a nested group of options."""
    return dataclasses.is_dataclass(hint)


def is_open(hint: Any) -> bool:
    """Whether a field is a mapping to which a user may add keys."""
    return typing.get_origin(hint) is dict


def expected(field: Field[Any], hint: Any) -> str:
    """What values fit, in words."""
    limits: Mapping[str, Any] = field.metadata.get(_LIMITS, {})
    if "choices" in limits:
        several = typing.get_origin(hint) is list
        words = [("a list of " if several else "one of ") + ", ".join(limits["choices"])]
    else:
        words = _words_of_type(hint)
        bounds = [f"{_WORDS[name]} {limits[name]:g}" for name in _WORDS if name in limits]
        if bounds and limits.get("at_least") == limits.get("at_most", math.nan):
            words = [f"{limits['at_least']:g}"]
        elif bounds:
            words = [" or ".join(words) + " " + " and ".join(bounds)]
    if _allows_none(hint):
        words.append("null")
    return " or ".join(dict.fromkeys(words))


def fits(field: Field[Any], hint: Any, value: Any) -> bool:
    """Whether a value has the type of an option and lies in its range; interpolations always fit."""
    if isinstance(value, str) and "${" in value:
        return True
    if value is None:
        return _allows_none(hint) or hint is Any
    limits: Mapping[str, Any] = field.metadata.get(_LIMITS, {})
    if "choices" in limits:
        members = value if isinstance(value, list) else [value]
        return bool(members) and all(one in limits["choices"] for one in members)
    if not any(_is_of_type(member, value) for member in _members(hint)):
        return False
    return _in_range(limits, value)


def _in_range(limits: Mapping[str, Any], value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_in_range(limits, one) for one in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    if isinstance(value, float) and math.isnan(value):
        return False
    return (
        value >= limits.get("at_least", -math.inf)
        and value <= limits.get("at_most", math.inf)
        and ("above" not in limits or value > limits["above"])
        and ("below" not in limits or value < limits["below"])
    )


def _members(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (Union, types.UnionType):
        return tuple(member for member in typing.get_args(hint) if member is not type(None))
    return (hint,)


def _allows_none(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType) and type(None) in typing.get_args(hint)


def _is_of_type(hint: Any, value: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin is dict:
        _, item = typing.get_args(hint)
        return isinstance(value, Mapping) and all(_is_of_type(item, one) for one in value.values())
    if origin is list:
        (item,) = typing.get_args(hint)
        return isinstance(value, list | tuple) and all(
            any(_is_of_type(member, one) for member in _members(item)) for one in value
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str | int | float) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _words_of_type(hint: Any) -> list[str]:
    return [_WORD_OF_TYPE.get(member) or _word_of_container(member) for member in _members(hint)]


_WORD_OF_TYPE = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Any: "any value",
}


def _word_of_container(hint: Any) -> str:
    if typing.get_origin(hint) is list:
        words = _words_of_type(typing.get_args(hint)[0])
        return "a list, each " + " or ".join(words)
    return "a mapping {key: value}"
