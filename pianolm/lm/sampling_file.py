"""Sampling that a model brings along: `generation_config.json` of its directory.

The standard keys of transformers mean what they mean there: `temperature`, `top_p`, `top_k`, `min_p`, and
`"do_sample": false` for the most likely token. What only pianolm knows stands under `pianolm`:

    {"do_sample": true, "temperature": 1.0, "pianolm": {"repeat": 2.0, "by_kind": {"tempo": {"temperature": 0.5}}}}

Other standard keys, such as those of beam search, are for transformers' own `generate`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pianolm.config.generate import KINDS, GenerateConfig, SamplingConfig
from pianolm.config.option import expected, fields_of, fits
from pianolm.errors import UserError
from pianolm.json_file import read_object

FILE = "generation_config.json"
SAMPLE, OWN, REPEAT, BY_KIND = "do_sample", "pianolm", "repeat", "by_kind"
STANDARD = tuple(fields_of(SamplingConfig))
"""Keys of transformers that pianolm reads, too."""


def read_sampling(directory: Path) -> dict[str, Any]:
    """The sampling settings of a model's directory, by the names of the options `generate.*`.

    Returns:
        Empty where the directory or the file does not exist; settings that are missing or null are left out.

    Raises:
        UserError: The file is not readable, or a value is none that the option may have.
    """
    path = directory / FILE
    if not path.is_file():
        return {}
    content = read_object(path)
    settings = _values(content, STANDARD, GenerateConfig, f"{path}: ")
    sample = content.get(SAMPLE)
    if sample is not None and not isinstance(sample, bool):
        raise UserError(f"{path}: {SAMPLE}={sample!r} found, expected true or false")
    if sample is False:
        settings["temperature"] = 0.0
    own = _part(content, OWN, (REPEAT, BY_KIND), f"{path}: ")
    settings |= _values(own, (REPEAT,), GenerateConfig, f"{path}: {OWN}.")
    by_kind = {}
    where = f"{path}: {OWN}.{BY_KIND}."
    for kind in (kinds := _part(own, BY_KIND, KINDS, f"{path}: {OWN}.")):
        rule = _part(kinds, kind, STANDARD, where)
        by_kind[kind] = _values(rule, STANDARD, SamplingConfig, f"{where}{kind}.")
    return {**settings, **({BY_KIND: by_kind} if by_kind else {})}


def sampling_beside(weights: Path) -> dict[str, Any]:
    """The sampling settings of the model whose directory, or a file in it, is given; see `read_sampling`."""
    return read_sampling(weights if weights.is_dir() else weights.parent)


def write_sampling(directory: Path, settings: Mapping[str, Any]) -> None:
    """Puts sampling settings into a model's directory, in place of those that it has; its other keys stay.

    Args:
        directory: Of a model.
        settings: As `read_sampling` returns them; None is left out. Empty settings leave the file as it is.

    Raises:
        UserError: The file that is there is not readable.
    """
    known = {name: value for name, value in settings.items() if value is not None and value != {}}
    if not known:
        return
    path = directory / FILE
    content = read_object(path) if path.is_file() else {}
    # with the last of these, transformers would ignore our part
    left_out = (*STANDARD, SAMPLE, OWN, "_from_model_config")
    content = {key: value for key, value in content.items() if key not in left_out}
    content[SAMPLE] = known.get("temperature") != 0
    if not content[SAMPLE]:
        del known["temperature"]
    content |= {key: known[key] for key in STANDARD if key in known}
    by_kind = {kind: dict(rule) for kind, rule in known.get(BY_KIND, {}).items()}
    if own := {key: value for key, value in ((REPEAT, known.get(REPEAT)), (BY_KIND, by_kind)) if value}:
        content[OWN] = own
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _values(part: Mapping[str, Any], keys: Collection[str], options: type, where: str) -> dict[str, Any]:
    """The values of some keys that are there and not null.

    Args:
        part: A JSON object.
        keys: Names of options.
        options: The dataclass that says what they may be.
        where: File and place of the object, for messages.
    """
    fields = fields_of(options)
    found = {key: part[key] for key in keys if part.get(key) is not None}
    for key, value in found.items():
        if isinstance(value, str) or not fits(*fields[key], value):
            raise UserError(f"{where}{key}={value!r} found, expected {expected(*fields[key])}")
    return found


def _part(content: Mapping[str, Any], key: str, known: Collection[str], where: str) -> dict[str, Any]:
    """An object in an object, empty where it is missing or null, which has known keys alone."""
    part = {} if content.get(key) is None else content[key]
    if not isinstance(part, dict):
        raise UserError(f"{where}{key}={part!r} found, expected a JSON object")
    if unknown := sorted(set(part) - set(known)):
        raise UserError(f"{where}{key}: unknown key {unknown[0]!r}, expected {', '.join(known)}")
    return part
