"""Damaged artifacts and model directories: a sentence within 2 s and 1 GiB, or the same result as before."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isolated import SENTENCE_SEC, Ending, isolated

from pianolm import PianoLM, PianoTokenizer
from pianolm.artifacts import RECORD, read_record
from pianolm.pipeline.graph import Planner
from pianolm.run import execute

Edit = Callable[[Path], None]
"""Damages one file."""
Compose = Callable[..., dict[str, Any]]
"""Makes a configuration from a root directory and overrides."""

ABSURD = (-1, 0, 10**9, 10**18, 1e300, "x", None, [], {})
GIVEN = {
    "prepare": ("cells", "codebook"),
    "codebook": ("codebook", "tokenize"),
    "velvq": ("velvq", "tokenize"),
    "base": ("base", "finetune"),
    "finetune": ("model", "generate"),
}
"""The role in which an artifact may be given, and a stage that takes it."""


@dataclass(frozen=True)
class Case:
    """A damaged file and what became of it.

    Attributes:
        place: `model directory`, or `artifact` and how it is used.
        file: The damaged file.
        how: The damage.
        said: The sentence; empty if the result was that of the undamaged file.
        problem: What is wrong; empty if nothing is.
        seconds: Processor time to the sentence.
    """

    place: str
    file: str
    how: str
    said: str
    problem: str
    seconds: float


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def altered(path: Path) -> None:
    """Other bytes of the same size."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(byte ^ 0x15 for byte in content[middle : middle + 8])
    path.write_bytes(content)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


CUTS: dict[str, Edit] = {
    "missing": missing,
    "empty": empty,
    "half": half,
    "9 bytes short": short,
    "zeroed": zeroed,
}


# Model directories


def json_edits(path: Path) -> Iterator[tuple[str, Edit]]:
    """Every key of a JSON file with absurd values."""

    def with_value(keys: Sequence[str], value: Any) -> Edit:
        def edit(file: Path) -> None:
            content = json.loads(file.read_text())
            place = content
            for key in keys[:-1]:
                place = place[key]
            place[keys[-1]] = value
            file.write_text(json.dumps(content))

        return edit

    for keys in _keys(json.loads(path.read_text()), ()):
        for value in ABSURD:
            yield f"{'.'.join(keys)}={value!r}", with_value(keys, value)


def _keys(content: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield (*above, key)
            yield from _keys(value, (*above, key))


def huge_array(path: Path) -> None:
    """The first array of an .npz declares 1 TiB."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<u8", "fortran_order": False, "shape": (2**37,)})
    name = next(name for name in members if name.startswith("l1"))
    members[name] = header.getvalue() + members[name][-64:]
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def with_header(change: Callable[[dict[str, Any]], None]) -> Edit:
    """Changes the header of a safetensors file."""

    def edit(path: Path) -> None:
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])

    return edit


def long_header(path: Path) -> None:
    path.write_bytes((2**50).to_bytes(8, "little") + path.read_bytes()[8:])


def _tensor(header: dict[str, Any]) -> dict[str, Any]:
    return header[max(name for name in header if name != "__metadata__")]


WEIGHT_EDITS: dict[str, Edit] = {
    "a header of 1 PiB": long_header,
    "a tensor of 1 TiB": with_header(lambda h: _tensor(h).update(shape=[2**38])),
    "another shape": with_header(lambda h: _tensor(h).update(shape=[*_tensor(h)["shape"][::-1], 1])),
    "another type": with_header(lambda h: _tensor(h).update(dtype="I32")),
    "negative offsets": with_header(lambda h: _tensor(h).update(data_offsets=[-4, -1])),
    "a tensor missing": with_header(lambda h: h.pop(max(name for name in h if name != "__metadata__"))),
    "no tensor": with_header(dict.clear),
}


def model_cases(model: Path, scratch: Path, count: int, seed: int) -> Iterator[Case]:
    """Damages of a model directory, each in a copy.

    Args:
        model: A published model with velocities.
        scratch: Where copies are made.
        count: Number of random absurd values in its JSON files, besides the damages of whole files.
        seed: Chooses them.
    """
    plain = scratch / "plain"
    shutil.copytree(
        model, plain, ignore=shutil.ignore_patterns(RECORD, "*.ckpt", "config.yaml", "generation_config.json")
    )
    before = played(plain)
    edits: list[tuple[Path, str, Edit]] = []
    absurd: list[tuple[Path, str, Edit]] = []
    for file in sorted(path for path in plain.rglob("*") if path.is_file()):
        edits += [(file, how, edit) for how, edit in CUTS.items()]
        if file.suffix == ".json":
            absurd += [(file, how, edit) for how, edit in json_edits(file)]
        elif file.suffix == ".safetensors":
            edits += [(file, how, edit) for how, edit in WEIGHT_EDITS.items()]
        else:
            edits.append((file, "an array of 1 TiB", huge_array))
    order = np.random.default_rng(seed).permutation(len(absurd))[:count]
    for file, how, edit in [*edits, *(absurd[index] for index in order)]:
        copy = scratch / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(plain, copy)
        name = file.relative_to(plain)
        edit(copy / name)
        ending = isolated(lambda copy=copy: played(copy))
        yield Case("model directory", str(name), how, *_judged(ending, before, copy))


def played(directory: Path) -> list[int]:
    """The ids of two generated beats."""
    generated = PianoLM.from_pretrained(directory).generate_pieces(beats=2)
    return [int(one) for one in generated[0].ids]


def _judged(ending: Ending, before: Any, named: Path) -> tuple[str, str, float]:
    """The sentence, what is wrong, and the seconds of an ending."""
    problem = ending.problem
    if ending.sentence:
        if "\n" in ending.sentence or str(named) not in ending.sentence:
            problem = f"no sentence that names the place: {ending.sentence}"
        elif ending.seconds > SENTENCE_SEC:
            problem = f"a sentence after {ending.seconds} s"
    elif not problem and ending.value != before:
        problem = "another result, and nothing is said"
    return ending.sentence.replace(f"{named}", "…"), problem, ending.seconds


# Artifacts

_EDITS: dict[str, Edit] = {"missing": missing, "half": half, "altered": altered}


def given_cases(root: Path, scratch: Path, compose: Compose) -> Iterator[Case]:
    """Damages of published artifacts that are given as `upstream.<role>=PATH`."""
    for stage, (role, user) in GIVEN.items():
        (whole,) = (path for path in (root / "artifacts" / stage).iterdir() if path.is_dir())
        for name in [*_files(whole), RECORD]:
            for how, edit in _EDITS.items():
                if name == RECORD and how != "half":
                    continue  # without its record it is no artifact, and its files are read as given
                copy = scratch / "given"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(whole, copy)
                edit(copy / name)
                cfg = compose(root, f"stage={user}", f"upstream.{role}={copy}", "verify=true")
                ending = isolated(lambda cfg=cfg: bool(Planner(cfg).plan()))
                yield Case("artifact that is given", f"{stage}/{name}", how, *_judged(ending, None, copy))


def rebuilt_cases(root: Path, scratch: Path, compose: Compose, stages: Sequence[str]) -> Iterator[Case]:
    """Damages of artifacts that a run would reuse: each is set aside, and the one built instead is the same."""
    for stage in stages:
        whole = min(path for path in (root / "artifacts" / stage).iterdir() if path.is_dir())
        record = read_record(whole) or {}
        largest = max(_files(whole), key=lambda name: (whole / name).stat().st_size)
        edits = [
            (largest, "half"),
            (largest, "altered"),
            (largest, "missing"),
            (RECORD, "missing"),
            (RECORD, "half"),
        ]
        mode = PianoTokenizer.from_pretrained(whole).mode if stage == "tokenize" else "velocity"
        for name, how in edits:
            copy = scratch / "root"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(root, copy, symlinks=True)
            _EDITS[how](copy / "artifacts" / stage / whole.name / name)
            cfg = compose(copy, f"stage={stage}", "verify=true", f"tokenizer={mode}")
            ending = isolated(lambda cfg=cfg, copy=copy: _rebuilt(cfg, copy), limit_bytes=None)
            found, said = ending.value or ({}, "")
            problem = ending.problem or ending.sentence or ("" if said else "nothing is said")
            if not problem and (other := other_files(record, found)):
                problem = f"other files: {other}"
            said = said.replace(str(copy), "…")
            yield Case("artifact that is reused", f"{stage}/{name}", how, said, problem, ending.seconds)


def _files(artifact: Path) -> list[str]:
    """Files of an artifact without those that are never read or hold paths."""
    names = (read_record(artifact) or {})["files"]
    return sorted(name for name in names if not name.endswith((".png", ".yaml", ".txt", ".mid")))


def _rebuilt(cfg: dict[str, Any], root: Path) -> tuple[dict[str, Any], str]:
    """Runs a stage; returns the record of its artifact, and what was said about the damaged one."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        artifact = Path(execute(cfg, root / "again")["artifact"])
    said = [line for line in printed.getvalue().splitlines() if "set aside" in line]
    return read_record(artifact) or {}, " ".join(said)


def other_files(record: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Files that differ, without those that hold paths or times."""
    a, b = record["files"], found["files"]
    differing = {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}
    return sorted(name for name in differing if not name.endswith((".yaml", ".ckpt", ".png")))
