"""`PianoTokenizer`: pieces to token ids and back, saved to and loaded from one directory.

Shapes: T tokens, C cells, R rows (cells and tied cells in the order of their tokens), S segments, B beats, V ids.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm import hub
from pianolm.errors import UserError
from pianolm.models import model_path
from pianolm.music.bars import bar_positions, bar_starts_from_positions
from pianolm.music.cells import Cells, segment_starts
from pianolm.music.piece import Piece, as_piece
from pianolm.tokenizer.codebook import Codebook
from pianolm.tokenizer.codebook_file import load_codebook, save_codebook
from pianolm.tokenizer.config import (
    SETTINGS_FILE,
    TokenizerSettings,
    read_settings,
    tokenizer_directory,
)
from pianolm.tokenizer.controls import without_controls
from pianolm.tokenizer.fill import check_fill, find_parts
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.sequence import CellTokens, Reading, SequenceReader, write_ids
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.ties import Rows, duration_bins, rows_with_ties
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.vocabulary import Kind, Vocabulary

DEFAULT_VELOCITY = 64
"""Velocity of decoded notes whose tokens carry none, such as all notes in base mode."""

_CODEBOOK, _CODEC = "codebook.npz", "velocity"


@dataclass(frozen=True)
class Encoding:
    """A tokenized piece.

    Attributes:
        ids: int64 [T], BOS first, EOS last.
        loss_mask: bool [T], False at velocity tokens of pieces with flat velocity, whose values are meaningless.
    """

    ids: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]


class PianoTokenizer:
    """Vocabulary, codebook, tempo bins and, in velocity mode, the velocity codec.

    Args:
        codebook: The pattern codebook, which includes the vocabulary.
        tempo: Tempo bins, one for every tempo id of the vocabulary.
        codec: The velocity codec; None makes a tokenizer of mode `base`, without velocities.
        ties: See `TokenizerSettings`, also for the following.
        bars: Whether beats state their position in the bar.
        exact: Whether L4 codes make every pattern exact.

    Attributes:
        settings: The options, with mode, vocabulary and tempo scheme.
        grammar: Grammar of its sequences.

    Raises:
        UserError: The parts do not fit together, or an option has an unknown value.
    """

    def __init__(
        self,
        codebook: Codebook,
        tempo: TempoBins,
        codec: VelocityCodec | None = None,
        *,
        ties: str = "repeat",
        bars: bool = False,
        exact: bool = True,
    ) -> None:
        self.vocabulary = codebook.vocabulary
        self.codebook, self.tempo, self.codec = codebook, tempo, codec
        self.ties, self.bars, self.exact = ties, bars, exact
        self.settings = TokenizerSettings(self.mode, ties, bars, tempo.scheme, exact, self.vocabulary)
        _check_sizes(self.vocabulary, tempo, codec)
        self.grammar = self._grammar()
        self._reader = SequenceReader(self.grammar)

    def _grammar(self, fill: bool = False) -> Grammar:
        return Grammar(
            self.vocabulary,
            self.codec is not None,
            self.codebook.silent_ids,
            self.ties,
            self.bars,
            self.exact,
            None if self.ties == "repeat" else self.codebook.tie_codes,
            self.tempo.tuned,
            fill,
        )

    @cached_property
    def fill_grammar(self) -> Grammar:
        """Grammar of fill sequences, too: see `pianolm.tokenizer.fill`.

        Raises:
            UserError: The layout has none.
        """
        check_fill(self.vocabulary, self.ties, self.exact)
        return self._grammar(fill=True)

    @property
    def mode(self) -> str:
        """`velocity` or `base`."""
        return "base" if self.codec is None else "velocity"

    @property
    def strikes_per_id(self) -> NDArray[np.int64]:
        """[V] notes that each token strikes."""
        return self.codebook.strikes_per_id

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Content hash of each part, that of the vocabulary with the layout; empty for a codec that is absent."""
        return {
            "vocabulary": self.vocabulary.fingerprint + self.settings.layout,
            "codebook": self.codebook.fingerprint,
            "tempo": self.tempo.fingerprint,
            "velocity": "" if self.codec is None else self.codec.fingerprint,
        }

    def without_velocities(self) -> PianoTokenizer:
        """The same tokenizer in base mode."""
        return PianoTokenizer(self.codebook, self.tempo, ties=self.ties, bars=self.bars, exact=self.exact)

    def encode(self, piece: Piece | str | os.PathLike[str]) -> Encoding:
        """Piece, or the MIDI file of a path, to ids with BOS and EOS.

        Raises:
            UserError: The file or its beats cannot be read.
        """
        piece = as_piece(piece)
        ids = self.encode_cells(piece.cells, piece.beats_sec, piece.bar_starts)
        meaningless = (self.vocabulary.kind_of[ids] == Kind.VELOCITY) & piece.flat
        return Encoding(ids, ~meaningless)

    def encode_cells(
        self,
        cells: Cells,
        beats_sec: NDArray[np.float64],
        bar_starts: NDArray[np.intp] | None = None,
        position_B: NDArray[np.int64] | None = None,
        tuning: int | None = None,
    ) -> NDArray[np.int64]:
        """Cells on their beats [B + 1] to ids [T], with BOS and EOS.

        Args:
            cells: C cells on B beats.
            beats_sec: [B + 1] beat times.
            bar_starts: [D] ascending beats at which a bar begins, as in `Piece.bar_starts`; empty or None if unknown.
            position_B: [B] positions of the beats in their bars, from 1 or `UNKNOWN`, instead of `bar_starts`.
            tuning: Tuning of the tempo scale; None takes the best one for these beats.
        """
        if position_B is None and bar_starts is not None:
            position_B = bar_positions(bar_starts, cells.n_beats)
        position_B = position_B if self.bars else None
        tuning = self.tempo.best_tuning(beats_sec) if tuning is None else tuning
        bins = self.tempo.encode(beats_sec, tuning)
        stated = tuning if self.tempo.tuned and bins.size else None
        return write_ids(self.vocabulary, self._cell_tokens(cells), bins, position_B, stated)

    def _cell_tokens(self, cells: Cells) -> CellTokens:
        """The tokens of cells, and of tied cells in layouts that have them."""
        codes: NDArray[np.integer] = self.codebook.encode(cells.sustain, cells.onset, self.exact)
        pitch = cells.pitch.astype(np.int64)
        velocity = (
            np.full(pitch.size, -1) if self.codec is None else self.codec.encode(cells).astype(np.int64)
        )
        if self.ties == "repeat":
            return CellTokens(codes, pitch, np.full(pitch.size, -1), velocity, cells.beat)
        return self._with_ties(rows_with_ties(cells), codes, velocity)

    def _with_ties(self, rows: Rows, codes: NDArray[np.integer], velocity: NDArray[np.int64]) -> CellTokens:
        """The tokens of cells and tied cells, from codes [C, 8] and velocity codes [C] of the cells."""
        codes = np.concatenate([codes, self._silent_codes[None]])[
            rows.cell
        ]  # index −1 is an all-silent tied cell
        velocity = np.append(velocity, -1)[rows.cell]
        velocity = np.where(self._reader.has_velocity(codes), velocity, -1)
        tied = rows.tied_frames >= 0
        nothing = np.full(rows.cell.size, -1)
        if self.ties == "explicit":
            bins = np.where(tied, duration_bins(rows.tied_frames), -1)
            return CellTokens(codes, rows.pitch, bins, velocity, rows.beat)
        return CellTokens(codes, np.where(tied, -1, rows.pitch), nothing, velocity, rows.beat)

    @cached_property
    def _silent_codes(self) -> NDArray[np.int32]:
        """[8] codes of an all-silent tied cell in the layout of `Codebook.encode`: two silent halves."""
        codes = np.full(8, -1, np.int32)
        silent_halves = self.codebook.silent_ids & (self.vocabulary.kind_of == Kind.L2)
        codes[[0, 4]] = np.flatnonzero(silent_halves)[0]
        return codes

    def cell_ids(self, cells: Cells) -> list[list[int]]:
        """The tokens behind the pitch of each of C cells: codes and, where it has one, velocity."""
        codes: NDArray[np.integer] = self.codebook.encode(cells.sustain, cells.onset, self.exact)
        found: list[list[int]] = [row[row >= 0].tolist() for row in codes]
        if self.codec is not None:
            velocity = self.codec.encode(cells).astype(np.int64) + self.vocabulary.offset(Kind.VELOCITY)
            for at in np.flatnonzero(self._reader.has_velocity(codes)).tolist():
                found[at].append(int(velocity[at]))
        return found

    @property
    def silent_cell(self) -> list[int]:
        """The codes of an all-silent tied cell."""
        codes: list[int] = self._silent_codes[self._silent_codes >= 0].tolist()
        return codes

    def decode(self, ids: ArrayLike) -> Piece:
        """Ids [T] to the piece they say, starting at 0 seconds; never raises on whole numbers.

        Controls say nothing about notes. Ids that are not well-formed are left out and counted in `Piece.skipped` (see
        `SequenceReader`), to which tied cells and duration bins that are missing add one each. Without velocity tokens
        every note gets velocity 64. A beat that states position 1 in its bar is a downbeat.
        """
        ids = self._without_controls(ids)
        reading = self._reader.read(ids)
        return Piece.from_cells(
            self._cells(ids, reading),
            self.tempo.decode(reading.tempo_bin, tuning=reading.tuning),
            flat=self.codec is None,
            skipped=ids.size - reading.used,
            bar_starts=bar_starts_from_positions(reading.bar_position),
        )

    def decode_fill(self, ids: ArrayLike) -> Piece:
        """The piece that a fill sequence [T] says, with its middle in place; never raises on whole numbers.

        A note of the middle that sounds at its end is joined with what the suffix holds over. Ids whose marks do not
        come in order are decoded as `decode` does.
        """
        ids = self._without_controls(ids)
        parts = find_parts(self.vocabulary, ids)
        if parts is None:
            return self.decode(ids)
        opening, _, suffix, prefix, middle = parts
        if suffix[:1].tolist() == [self.vocabulary.eos]:  # nothing comes after the gap
            suffix = suffix[1:]
        past = np.concatenate([opening, prefix, middle])
        before, after = self._reader.read(past), self._reader.read(suffix)
        if after.untied is not None:
            after.untied[after.cells.beat == 0] = False  # held over from the middle, if it sounds to its end
        cells = _joined(self._cells(past, before), self._cells(suffix, after))
        positions = np.concatenate([before.bar_position, after.bar_position])
        bins = np.concatenate([before.tempo_bin, after.tempo_bin])
        return Piece.from_cells(
            cells,
            self.tempo.decode(bins, tuning=before.tuning),
            flat=self.codec is None,
            skipped=past.size + suffix.size - before.used - after.used,
            bar_starts=bar_starts_from_positions(positions),
        )

    def _without_controls(self, ids: ArrayLike) -> NDArray[np.int64]:
        flat = np.asarray(ids, np.int64).ravel()
        return without_controls(self.vocabulary, flat) if self.grammar.controls else flat

    def velocity_tokens(
        self, ids: ArrayLike
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the velocity tokens of cells in ids [T], and beat and pitch of each of these cells."""
        reading = self._reader.read(np.asarray(ids, np.int64).ravel())
        cells = reading.cells
        has_velocity = self._reader.has_velocity(cells.code_ids)
        return cells.last[has_velocity], cells.beat[has_velocity], cells.pitch[has_velocity]

    def _cells(self, ids: NDArray[np.int64], reading: Reading) -> Cells:
        """Cells [C] from their codes and velocity tokens."""
        read = reading.cells
        sustain, onset = self.codebook.decode(read.code_ids)
        if reading.untied is not None:
            onset = np.where(reading.untied, onset | (sustain & np.uint64(1)), onset)
        count = np.bitwise_count(segment_starts(sustain, onset)).astype(np.int64)
        velocity = np.full(int(count.sum()), DEFAULT_VELOCITY, np.uint8)
        if self.codec is not None:
            stated = self._reader.has_velocity(read.code_ids)
            codes = ids[read.last[stated]] - self.vocabulary.offset(Kind.VELOCITY)
            # the vocabulary may have more velocity ids than the codec has codes
            codes = np.minimum(codes, self.codec.codebook_size - 1)
            velocity[np.repeat(stated, count)] = self.codec.decode(codes, sustain[stated], onset[stated])
            if not stated.all():
                _carry_over(velocity, count, stated, read.pitch)
        beat, pitch = read.beat.astype(np.int32), read.pitch.astype(np.uint8)
        return Cells(beat, pitch, sustain, onset, velocity, reading.tempo_bin.size)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes the tokenizer: `tokenizer.json`, `codebook.npz` and, in velocity mode, `velocity/`."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        save_codebook(self.codebook, directory / _CODEBOOK)
        if self.codec is not None:
            self.codec.save(directory / _CODEC)
        self.settings.save(directory, self.hashes)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> PianoTokenizer:
        """Reads a tokenizer directory, a directory with one called `tokenizer` inside, or that of a model by its name.

        Args:
            directory: A path, the name of a bundled model (`pianolm.models`), or `user/name` on the Hugging Face
                hub.

        Raises:
            UserError: A file is missing, of another format, or has other contents than when it was saved.
        """
        directory = tokenizer_directory(model_path(directory, hub.TOKENIZER_FILES))
        saved = read_settings(directory)
        try:
            settings = TokenizerSettings.from_dict(saved)
        except UserError as error:
            raise UserError(
                f"{directory / SETTINGS_FILE}: {error}; take the directory as published"
            ) from error
        tokenizer = cls(
            load_codebook(directory / _CODEBOOK, settings.vocabulary),
            TempoBins(settings.tempo, settings.vocabulary.tempo),
            VelocityCodec.from_directory(directory / _CODEC) if settings.mode == "velocity" else None,
            ties=settings.ties,
            bars=settings.bars,
            exact=settings.exact,
        )
        changed = [name for name, value in tokenizer.hashes.items() if value != saved["hashes"].get(name)]
        if changed:
            raise UserError(
                f"{directory}: {', '.join(changed)} found with other contents than recorded when the tokenizer was "
                "saved; take the directory as it was published"
            )
        return tokenizer


def _joined(before: Cells, after: Cells) -> Cells:
    """The cells of some beats and those of the beats that follow."""
    return Cells(
        beat=np.concatenate([before.beat, after.beat + np.int32(before.n_beats)]),
        pitch=np.concatenate([before.pitch, after.pitch]),
        sustain=np.concatenate([before.sustain, after.sustain]),
        onset=np.concatenate([before.onset, after.onset]),
        segment_velocity=np.concatenate([before.segment_velocity, after.segment_velocity]),
        n_beats=before.n_beats + after.n_beats,
    )


def _check_sizes(vocabulary: Vocabulary, tempo: TempoBins, codec: VelocityCodec | None) -> None:
    """Raises UserError where tempo bins or velocity codes do not fit the vocabulary."""
    if tempo.bins != vocabulary.tempo:
        raise UserError(
            f"tokenizer: {tempo.bins} tempo bins, but the vocabulary has {vocabulary.tempo} tempo ids"
        )
    if codec is not None and codec.codebook_size > vocabulary.velocity:
        raise UserError(
            f"tokenizer: the velocity codec has {codec.codebook_size} codes, the vocabulary "
            f"{vocabulary.velocity} velocity ids; set tokenizer.vocabulary.velocity={codec.codebook_size} "
            "or train the codec with fewer (velvq.codebook_size)"
        )


def _carry_over(
    velocity: NDArray[np.uint8],
    count: NDArray[np.int64],
    stated: NDArray[np.bool_],
    pitch: NDArray[np.int64],
) -> None:
    """Gives the segments [S] of cells [C] without a velocity the last one that their pitch had before, if any.

    Args:
        velocity: [S] changed in place.
        count: [C] segments of each cell.
        stated: [C] cells with a velocity token.
        pitch: [C] pitches of the cells, which are in order of beats.
    """
    by_pitch = np.argsort(pitch, kind="stable")
    last_stated = np.maximum.accumulate(np.where(stated[by_pitch], np.arange(pitch.size), -1))
    before = by_pitch[last_stated]  # a cell of another pitch where none of this pitch came before
    known = (last_stated >= 0) & (pitch[before] == pitch[by_pitch]) & ~stated[by_pitch]
    last_segment = np.cumsum(count) - 1
    carried = np.full(pitch.size, DEFAULT_VELOCITY, np.uint8)
    carried[by_pitch[known]] = velocity[last_segment[before[known]]]
    unstated = np.repeat(~stated, count)
    velocity[unstated] = np.repeat(carried, count)[unstated]
