"""The token store: the ids of every piece of a data set one after another in one memory-mapped file.

Files: `tokens.npy` (uint16 [T]), `beat_starts.npy` (int64 [N], offsets where a window may begin), `pieces.json` (a row
a piece) and `meta.json`, written last: a store without it is incomplete. Stage `tokenize` adds `tokenizer/`.
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

from pianolm.data.cell_store import SPLITS
from pianolm.data.store_files import NpyWriter, map_array, read_marker
from pianolm.errors import UserError
from pianolm.tokenizer.vocabulary import Kind, Vocabulary

FORMAT = "pianolm tokens"
FORMAT_VERSION = 1
_TOKENS, _BEATS, _PIECES, _MARKER = "tokens.npy", "beat_starts.npy", "pieces.json", "meta.json"
_STAGE = "tokenize"
_LARGEST_VOCABULARY = 1 << 16


class TokenizerLike(Protocol):
    """Attributes of a tokenizer that the store records."""

    @property
    def vocabulary(self) -> Vocabulary: ...  # noqa: D102  # see PianoTokenizer
    @property
    def mode(self) -> str: ...  # noqa: D102
    @property
    def hashes(self) -> Mapping[str, str]: ...  # noqa: D102


class PieceLike(Protocol):
    """Attributes of a piece that the store records; `pianolm.data.cell_store.PieceRow` has them."""

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
        flat: Whether the velocities are flat, so that no loss is taken on them.
        notes: Number of struck notes.
        start: Offset of the first token.
        stop: Offset after the last token.
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
    """Writes a store piece by piece; only the tokens of one piece are in memory at a time.

    Use as a context manager; the store is complete when the block ends without an exception.

    Raises:
        UserError: The vocabulary has more ids than 16 bits can hold.
    """

    def __init__(self, directory: Path, tokenizer: TokenizerLike) -> None:
        vocabulary = tokenizer.vocabulary
        if vocabulary.size > _LARGEST_VOCABULARY:
            raise UserError(
                f"tokenizer.vocabulary: {vocabulary.size} ids found, expected at most {_LARGEST_VOCABULARY}, "
                "since ids are stored as 16 bits; reduce its sizes"
            )
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._vocabulary = vocabulary
        self._meta = {
            "vocabulary": vocabulary.to_dict(),
            "mode": tokenizer.mode,
            "hashes": dict(tokenizer.hashes),
        }
        self._tokens = NpyWriter(directory / _TOKENS, np.uint16)
        self._beats = NpyWriter(directory / _BEATS, np.int64)
        self._rows: list[TokenRow] = []

    def add(self, row: PieceLike, ids: ArrayLike) -> None:
        """Appends a piece and its ids [T]; T is at least 1."""
        tokens = np.asarray(ids)
        assert tokens.ndim == 1, "ids are one-dimensional"
        assert tokens.size, "a piece has at least BOS"
        assert 0 <= tokens.min() <= tokens.max() < self._vocabulary.size, "ids of the vocabulary"
        start = self._rows[-1].stop if self._rows else 0
        self._tokens.append(tokens)
        self._beats.append(start + beat_positions(tokens, self._vocabulary))
        metadata = {
            name: getattr(row, name)
            for name in TokenRow.__dataclass_fields__
            if name not in ("start", "stop")
        }
        self._rows.append(TokenRow(**metadata, start=start, stop=start + int(tokens.size)))

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
    """Positions [N] in a piece's ids [T] where a beat begins, at its tempo token; BOS belongs to the first beat."""
    tempo_at = np.flatnonzero(vocabulary.kind_of[ids] == Kind.TEMPO).astype(np.int64)
    return np.concatenate([[0], tempo_at[1:]]).astype(np.int64)


class TokenStore:
    """Read access to a store. Opening maps the files without reading tokens, so its time does not grow with them.

    Attributes:
        directory: Directory of the store.
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
        self.tokens: NDArray[np.uint16] = map_array(directory / _TOKENS, _STAGE)
        self.beat_starts: NDArray[np.int64] = map_array(directory / _BEATS, _STAGE)
        if self.tokens.shape != (meta["tokens"],):
            raise UserError(
                f"{directory / _TOKENS}: {self.tokens.size} tokens found, expected {meta['tokens']} as "
                f"{_MARKER} says; run stage=tokenize force=true"
            )

    @classmethod
    def open(cls, directory: str | Path) -> TokenStore:
        """Opens a store.

        Raises:
            UserError: The directory holds no complete store of this format version.
        """
        directory = Path(directory)
        return cls(directory, read_marker(directory / _MARKER, FORMAT, FORMAT_VERSION, _STAGE))

    @property
    def tokenizer_dir(self) -> Path:
        """Directory of the tokenizer that made the ids."""
        return self.directory / "tokenizer"

    @cached_property
    def pieces(self) -> list[TokenRow]:
        """[P] rows in stored order; read on first access."""
        path = self.directory / _PIECES
        try:
            return [TokenRow(**row) for row in json.loads(path.read_text("utf-8"))]
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: not readable ({error}); run stage=tokenize force=true") from error

    @cached_property
    def tunings(self) -> NDArray[np.int64]:
        """[P] id of the tuning that each piece states behind BOS, −1 where it states none; read on first access."""
        stated = [self.vocabulary.tuning_id(self.ids(index)) for index in range(len(self.pieces))]
        return np.array([ids[0] if ids else -1 for ids in stated], np.int64)

    def split(self, name: str) -> list[int]:
        """Indices of the pieces of a split."""
        assert name in SPLITS, name
        return [index for index, row in enumerate(self.pieces) if row.split == name]

    def ids(self, index: int) -> NDArray[np.uint16]:
        """The ids [T] of one piece, as a view into the mapped file."""
        row = self.pieces[index]
        return self.tokens[row.start : row.stop]

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled as its path: another process maps the files itself, and no array is copied.
        return TokenStore.open, (self.directory,)
