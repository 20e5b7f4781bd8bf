"""The token store: the ids of every piece of a data set one after the other in one memory-mapped file.

Files of a store: `tokens.npy` uint16 [T]; `beat_starts.npy` int64 [N], offsets where a window may begin;
`pieces.json`, one row a piece; and `meta.json`, written last: without it the store is unfinished. The stage
that writes it adds `tokenizer/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.data.cell_store import SPLITS, NpyStream
from pianolm.errors import UserError
from pianolm.tokenizer.vocabulary import Kind, Vocabulary

FORMAT = "pianolm tokens"
FORMAT_VERSION = 1
_TOKENS, _BEATS, _PIECES, _MARKER = "tokens.npy", "beat_starts.npy", "pieces.json", "meta.json"
_LARGEST_VOCABULARY = 1 << 16


class TokenizerLike(Protocol):
    """What the store wants to know of a tokenizer."""

    @property
    def vocabulary(self) -> Vocabulary: ...  # noqa: D102  # the names say it
    @property
    def mode(self) -> str: ...  # noqa: D102
    @property
    def hashes(self) -> Mapping[str, str]: ...  # noqa: D102


class PieceLike(Protocol):
    """What the store keeps of a piece; `pianolm.data.cell_store.PieceRow` is one."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def composition(self) -> str: ...  # noqa: D102
    @property
    def split(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def flat(self) -> bool: ...  # noqa: D102
    @property
    def notes(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class TokenRow:
    """One piece of the store.

    Attributes:
        id: Unique name.
        source: Data set.
        composition: Same for all versions of a composition.
        split: train, validation or test.
        kind: performance or score.
        flat: Whether the velocities say nothing, so that no loss is taken on them.
        notes: Struck notes.
        start: Offset of the first token.
        stop: Offset after the last.
    """

    id: str
    source: str
    composition: str
    split: str
    kind: str
    flat: bool
    notes: int
    start: int
    stop: int


class TokenStoreWriter:
    """Writes a store piece by piece; of the tokens only one piece is in memory at a time.

    Use as a context manager; the store is whole when the block is left without an exception.

    Raises:
        UserError: The vocabulary has more ids than 16 bits can hold.
    """

    def __init__(self, directory: Path, tokenizer: TokenizerLike) -> None:
        vocabulary = tokenizer.vocabulary
        if vocabulary.size > _LARGEST_VOCABULARY:
            raise UserError(
                f"tokenizer.vocabulary: {vocabulary.size} ids found, expected at most {_LARGEST_VOCABULARY}, "
                "which 16 bits can hold; make its blocks smaller"
            )
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._vocabulary = vocabulary
        self._meta = {
            "vocabulary": vocabulary.to_dict(),
            "mode": tokenizer.mode,
            "hashes": dict(tokenizer.hashes),
        }
        self._tokens = NpyStream(directory / _TOKENS, np.uint16)
        self._beats = NpyStream(directory / _BEATS, np.int64)
        self._rows: list[TokenRow] = []

    def add(self, row: PieceLike, ids: ArrayLike) -> None:
        """Appends a piece and its ids [T], T at least 1."""
        tokens = np.asarray(ids)
        assert tokens.ndim == 1, "one row of ids"
        assert tokens.size, "a piece has BOS at least"
        assert 0 <= tokens.min() <= tokens.max() < self._vocabulary.size, "ids of the vocabulary"
        start = self._rows[-1].stop if self._rows else 0
        self._tokens.append(tokens)
        self._beats.append(start + beat_positions(tokens, self._vocabulary))
        known = {
            name: getattr(row, name)
            for name in TokenRow.__dataclass_fields__
            if name not in ("start", "stop")
        }
        self._rows.append(TokenRow(**known, start=start, stop=start + int(tokens.size)))

    def __enter__(self) -> TokenStoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tokens.close()
        self._beats.close()
        if error is None:
            (self._directory / _PIECES).write_text(json.dumps([asdict(row) for row in self._rows]), "utf-8")
            tokens = self._rows[-1].stop if self._rows else 0
            counts = {"pieces": len(self._rows), "tokens": tokens}
            meta = {"format": FORMAT, "version": FORMAT_VERSION, **self._meta, **counts}
            (self._directory / _MARKER).write_text(json.dumps(meta, indent=2), "utf-8")


def beat_positions(ids: NDArray[Any], vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Positions [N] in a piece's ids [T] where a beat begins: its tempo token.

    The first beat begins with the piece: BOS belongs to it.
    """
    at = np.flatnonzero(vocabulary.kind_of[ids] == Kind.TEMPO).astype(np.int64)
    return np.concatenate([[0], at[1:]]).astype(np.int64)


class TokenStore:
    """Read access to a store. Opening maps the files, it reads none of the tokens, at any size.

    Attributes:
        directory: Where it lies.
        tokens: uint16 [T], the ids of all pieces.
        beat_starts: int64 [N] ascending, offsets into `tokens` where a window may begin: a piece's first
            token and the tempo tokens of its later beats.
        vocabulary: The ids.
        mode: `velocity` or `base`.
        hashes: Content hash of each part of the tokenizer.
    """

    def __init__(self, directory: Path, meta: Mapping[str, Any]) -> None:
        self.directory = directory
        self.vocabulary = Vocabulary.from_dict(meta["vocabulary"])
        self.mode: str = meta["mode"]
        self.hashes: dict[str, str] = meta["hashes"]
        self.tokens: NDArray[np.uint16] = _map_array(directory / _TOKENS)
        self.beat_starts: NDArray[np.int64] = _map_array(directory / _BEATS)
        if self.tokens.shape != (meta["tokens"],):
            raise UserError(
                f"{directory / _TOKENS}: {self.tokens.size} tokens found, expected {meta['tokens']} as "
                f"{_MARKER} says; "
                "run stage=tokenize force=true"
            )

    @classmethod
    def open(cls, directory: str | Path) -> TokenStore:
        """Opens a store.

        Raises:
            UserError: The directory holds no whole store of this format version.
        """
        directory = Path(directory)
        return cls(directory, _read_meta(directory))

    @property
    def tokenizer_dir(self) -> Path:
        """Directory of the tokenizer that made the ids."""
        return self.directory / "tokenizer"

    @cached_property
    def pieces(self) -> list[TokenRow]:
        """[P] rows in stored order; read when first asked for."""
        path = self.directory / _PIECES
        try:
            return [TokenRow(**row) for row in json.loads(path.read_text("utf-8"))]
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: not readable ({error}); run stage=tokenize force=true") from error

    def split(self, name: str) -> list[int]:
        """Indices of the pieces of a split."""
        assert name in SPLITS, name
        return [index for index, row in enumerate(self.pieces) if row.split == name]

    def ids(self, index: int) -> NDArray[np.uint16]:
        """The ids [T] of one piece, as a view into the mapped file."""
        row = self.pieces[index]
        return self.tokens[row.start : row.stop]

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that is handed the store maps the files itself: nothing large is copied.
        return TokenStore.open, (self.directory,)


def _map_array(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing from the token store; run stage=tokenize force=true") from error
    except ValueError as error:
        if "empty" not in str(error):
            raise UserError(f"{path}: cut off or damaged ({error}); run stage=tokenize force=true") from error
        return np.load(path)  # an array of length 0 cannot be mapped


def _read_meta(directory: Path) -> dict[str, Any]:
    marker = directory / _MARKER
    if not marker.is_file():
        raise UserError(
            f"{directory}: no {_MARKER}, so this is no token store or an unfinished one; "
            "expected a directory published by stage=tokenize"
        )
    try:
        meta: dict[str, Any] = json.loads(marker.read_text("utf-8"))
        found = (meta["format"], meta["version"])
    except (ValueError, KeyError, TypeError):
        found = ("something else", "?")
    if found != (FORMAT, FORMAT_VERSION):
        raise UserError(
            f"{marker}: {found[0]} of version {found[1]} found, expected {FORMAT} of version "
            f"{FORMAT_VERSION}; "
            "run stage=tokenize"
        )
    return meta
