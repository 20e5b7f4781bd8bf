"""Codebook files: writes a codebook as `.npz` and reads it back, or reads one made by other software.

Our own files hold six arrays, `l1_sustain`, `l1_onset`, … `l3_onset`, each [K] uint64 with bit f for frame f. Foreign
files hold one array a level, named `l1`, `L1` or `centroids_l1` and so on: float centroids or bool patterns of shape
[K, F] (sustain only), [K, 2 F] or [K, 2, F] (sustain, then onset), F being 48, 24 and 12 frames. They are thresholded
at 0.5, and codes that break a rule of the codebook are repaired.

Shapes: K codes of a level, F frames of a pattern.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.cells import strike_after_silence
from pianolm.tokenizer.codebook import LEVEL_FRAMES, Codebook, Patterns
from pianolm.tokenizer.codebook_fit import simple_patterns
from pianolm.tokenizer.vocabulary import CODE_KINDS, Vocabulary

FORMAT_VERSION = 1
_OWN_ARRAYS = tuple(f"l{level}_{mask}" for level in (1, 2, 3) for mask in ("sustain", "onset"))
_FOREIGN_ARRAY = re.compile(r"(?:centroids_)?l([123])", re.IGNORECASE)
_EXPECTED = f"{', '.join(_OWN_ARRAYS)}, or one array a level named l1, l2, l3 (or centroids_l1, …)"
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    SyntaxError,
    TokenError,
    zlib.error,
    zipfile.BadZipFile,
)
"""What zipfile and NumPy raise on a damaged archive."""

Header = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and type of an array."""


class Repairs(NamedTuple):
    """Codes of a foreign codebook that were changed, by the rule they broke.

    Attributes:
        onset_outside_sustain: Had onsets in silent frames; these onsets were removed.
        unstruck: Had sound after silence without an onset; it became a strike, as the decoder would read it.
        duplicate: Had the pattern of an earlier code; they got an unused pattern.
        silent: Were all silent in L1, or beside another silent code; they got an unused pattern.
        without_silence: Became the all-silent code that L2 and L3 need, as their level had none.
    """

    onset_outside_sustain: int = 0
    unstruck: int = 0
    duplicate: int = 0
    silent: int = 0
    without_silence: int = 0

    def sentence(self, path: str | Path) -> str:
        """One line that says what was repaired; empty where nothing was."""
        named = {
            "with onsets outside their sustain": self.onset_outside_sustain,
            "with sound that follows silence unstruck": self.unstruck,
            "that repeat another": self.duplicate,
            "all silent where that is not allowed": self.silent,
            "replaced by the silent code their level lacked": self.without_silence,
        }
        found = [f"{count} {what}" for what, count in named.items() if count]
        return f"{path}: repaired codes: {', '.join(found)}" if found else ""


def save_codebook(codebook: Codebook, path: str | Path) -> None:
    """Writes `l1_sustain`, `l1_onset`, … `l3_onset` (uint64 [K]) and `format_version` as .npz."""
    arrays = {}
    for number, patterns in enumerate(codebook.levels, 1):
        arrays[f"l{number}_sustain"], arrays[f"l{number}_onset"] = patterns
    np.savez_compressed(path, format_version=np.array(FORMAT_VERSION), **arrays)  # type: ignore[arg-type]  # numpy types the keywords as its own flags


def load_codebook(path: str | Path, vocabulary: Vocabulary) -> Codebook:
    """Reads a codebook; see `import_codebook`, which also returns the repairs."""
    return import_codebook(path, vocabulary)[0]


def import_codebook(path: str | Path, vocabulary: Vocabulary) -> tuple[Codebook, Repairs]:
    """Reads a codebook written by `save_codebook` or by other software.

    Args:
        path: The .npz file.
        vocabulary: Gives the number of codes a level.

    Raises:
        UserError: The file is missing or damaged, lacks an array, or does not fit the vocabulary.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            headers = dict(_headers(archive))
            own = _OWN_ARRAYS[0] in headers
            names = (_own_names if own else _foreign_names)(
                path, headers, vocabulary
            )  # sizes are checked here
            arrays = {name: _read(archive, name) for name in names}
    except UserError:
        raise
    except _DAMAGED as error:
        raise UserError(f"{path}: not a readable .npz codebook ({error}); expected {_EXPECTED}") from error
    return (_own_codebook if own else _foreign_codebook)(path, arrays, vocabulary)


def _headers(archive: zipfile.ZipFile) -> Iterator[tuple[str, Header]]:
    """Name, shape and type of every array of an archive, read without its content."""
    for member in archive.namelist():
        if not member.endswith(".npy"):
            continue
        with archive.open(member) as file:
            yield member.removesuffix(".npy"), _header(file)


def _header(file: IO[bytes]) -> Header:
    """Shape and type of an array, from the beginning of its file.

    Raises:
        ValueError: It is no array, or one of other things than numbers.
    """
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"an array of npy format {version}")
    shape, _, dtype = read(file)
    if dtype.hasobject or dtype.kind not in "fbui":
        raise ValueError(f"an array of type {dtype}, expected numbers or bool")
    return tuple(shape), dtype


def _read(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _own_names(path: Path, headers: dict[str, Header], vocabulary: Vocabulary) -> list[str]:
    """Names of the arrays of a file of ours, whose sizes are checked."""
    missing = [name for name in _OWN_ARRAYS if name not in headers]
    if missing:
        raise UserError(f"{path}: lacks the array(s) {', '.join(missing)}; expected {_EXPECTED}")
    for name in _OWN_ARRAYS:
        kind, (shape, dtype) = CODE_KINDS[int(name[1]) - 1], headers[name]
        if len(shape) != 1 or dtype.kind not in "ui":
            raise UserError(
                f"{path}: array {name} has shape {list(shape)} and type {dtype}, expected bit masks "
                f"[{vocabulary.count(kind)}] of type uint64"
            )
        if shape[0] != vocabulary.count(kind):
            raise UserError(
                f"{path}: {shape[0]} codes found in {name}, the vocabulary has {vocabulary.count(kind)}; set "
                f"tokenizer.vocabulary.{kind.name.lower()}={shape[0]}, or give another codebook"
            )
    has_version = headers.get("format_version", ((0,), None))[0] == ()
    return [*_OWN_ARRAYS, *(["format_version"] if has_version else [])]


def _own_codebook(
    path: Path, arrays: dict[str, NDArray[Any]], vocabulary: Vocabulary
) -> tuple[Codebook, Repairs]:
    version = int(arrays.get("format_version", FORMAT_VERSION))
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: codebook format {version} found, expected {FORMAT_VERSION}; build it again with stage=codebook"
        )
    masks = [arrays[name].astype(np.uint64) for name in _OWN_ARRAYS]
    levels = Patterns(*masks[0:2]), Patterns(*masks[2:4]), Patterns(*masks[4:6])
    try:
        return Codebook(vocabulary, levels), Repairs()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _foreign_names(path: Path, headers: dict[str, Header], vocabulary: Vocabulary) -> list[str]:
    """Names of the arrays of L1, L2 and L3 in a foreign file, whose sizes are checked."""
    names: dict[int, str] = {}
    for name in headers:
        if match := _FOREIGN_ARRAY.fullmatch(name):
            names.setdefault(int(match[1]), name)
    if len(names) < 3:
        found = ", ".join(sorted(headers)) or "no array"
        raise UserError(f"{path}: {found} found, expected {_EXPECTED}")
    for level, frames in zip((1, 2, 3), LEVEL_FRAMES, strict=False):
        kind, (shape, _) = CODE_KINDS[level - 1], headers[names[level]]
        count = vocabulary.count(kind)
        if shape not in {(count, frames), (count, 2 * frames), (count, 2, frames)}:
            raise UserError(
                f"{path}: array {names[level]} has shape {list(shape)}, expected [{count}, {frames}], "
                f"[{count}, {2 * frames}] or [{count}, 2, {frames}], as tokenizer.vocabulary.{kind.name.lower()} is "
                f"{count}"
            )
    return [names[level] for level in (1, 2, 3)]


def _foreign_codebook(
    path: Path, arrays: dict[str, NDArray[Any]], vocabulary: Vocabulary
) -> tuple[Codebook, Repairs]:
    levels, repairs = [], Repairs()
    for (name, array), frames in zip(arrays.items(), LEVEL_FRAMES, strict=False):
        if not np.isfinite(array).all():
            raise UserError(
                f"{path}: array {name} has values that are not finite, expected centroids from 0 to 1"
            )
        patterns, level_repairs = _repaired(_thresholded(array, frames), frames)
        levels.append(patterns)
        repairs = Repairs(*(a + b for a, b in zip(repairs, level_repairs, strict=True)))
    return Codebook(vocabulary, (levels[0], levels[1], levels[2])), repairs


def _thresholded(array: NDArray[Any], frames: int) -> Patterns:
    """Patterns [K] of centroids [K, F], [K, 2 F] or [K, 2, F]; without onsets, every run of sustain is struck."""
    bits = (array > 0.5).reshape(len(array), -1, frames)
    masks = (bits.astype(np.uint64) << np.arange(frames, dtype=np.uint64)).sum(axis=2, dtype=np.uint64)
    sustain = masks[:, 0]
    onset = masks[:, 1] if masks.shape[1] == 2 else sustain & ~(sustain << np.uint64(1))
    return Patterns(sustain, onset)


def _repaired(patterns: Patterns, frames: int) -> tuple[Patterns, Repairs]:
    """Patterns [K] of one level that keep the rules of `check_level`, and what was changed. Codes keep their ids."""
    sustain, given_onset = patterns
    inside = given_onset & sustain
    onset = strike_after_silence(sustain, inside)
    silence_allowed = frames != LEVEL_FRAMES[0]
    codes: list[tuple[int, int] | None] = []  # None where another pattern is needed
    used: set[tuple[int, int]] = set()
    duplicate = silent = 0
    for code in zip(sustain.tolist(), onset.tolist(), strict=True):
        repeated = code in used
        forbidden = not code[0] and (repeated or not silence_allowed)
        silent, duplicate = silent + forbidden, duplicate + (repeated and not forbidden)
        codes.append(None if repeated or forbidden else code)
        used.add(code)
    without_silence = silence_allowed and (0, 0) not in used
    if without_silence:
        codes[codes.index(None) if None in codes else -1] = 0, 0
    used.add((0, 0))
    unused = (pattern for pattern in simple_patterns(frames) if pattern not in used)
    fill = list(islice(unused, codes.count(None)))
    if len(fill) < codes.count(None):
        raise UserError(
            f"a codebook level of {frames} frames: {codes.count(None)} codes repeat another or are silent, more than "
            f"the {len(fill)} patterns that can replace them; expected distinct codes"
        )
    masks = np.array([fill.pop(0) if code is None else code for code in codes], np.uint64)
    changed = Repairs(
        onset_outside_sustain=int((inside != given_onset).sum()),
        unstruck=int((onset != inside).sum()),
        duplicate=duplicate,
        silent=silent,
        without_silence=int(without_silence),
    )
    return Patterns(masks[:, 0].copy(), masks[:, 1].copy()), changed
