"""Measures excerpts of songs, altered ones, and continuations by models.

    python measure.py CELLS RESULTS SCORER MODEL …

Each excerpt has 64 beats; the first 16 are the song's in all versions, and the other 48 are measured. Appends a row for
each excerpt and version; versions that stand in RESULTS are not measured again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.results import Row, read_rows, write_rows
from pianolm import PianoLM, Piece
from pianolm.data.cell_store import CellStore
from pianolm.data.token_store import beat_positions
from pianolm.dynamics.renderer import DynamicsModel
from pianolm.evaluation.bits import TokenizedPiece, score_pieces
from pianolm.evaluation.excerpts import cut, opening, within
from pianolm.evaluation.music_statistics import key_of, statistics
from pianolm.evaluation.selection import evenly_spaced
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FrameNotes, frames_to_notes, resolve_notes
from pianolm.tokenizer.token_mask import token_masks
from pianolm.tokenizer.vocabulary import KIND_GROUPS, Kind

SONGS, PROMPT, BEATS, BAR = 40, 16, 64, 4
MASK = "grammar"
Alteration = Callable[[Piece, np.random.Generator], Piece]


def excerpts(cells: Path) -> list[Piece]:
    """Openings of validation songs, evenly spaced, that begin with a bar."""
    store = CellStore.open(cells)
    validation = [index for index, row in enumerate(store.pieces) if row.split == "validation"]
    found = []
    for index in evenly_spaced(validation, SONGS):
        bars = store.bar_starts(index)
        whole = Piece.from_cells(store.cells(index), np.asarray(store.beats_sec(index)), bar_starts=bars)
        piece = opening(whole, BEATS)
        assert piece is not None, "a song of more than 64 beats"
        found.append(cut(piece, 0, BEATS))
    return found


def with_frames(piece: Piece, frames: FrameNotes) -> Piece:
    """The piece with other notes, given in frames."""
    frames = frames[np.lexsort((frames["pitch"], frames["onset"]))]
    notes, _ = resolve_notes(frames_to_notes(frames, piece.beats_sec), piece.beats_sec)
    return replace(piece, notes=notes)


def deadpan(piece: Piece, rng: np.random.Generator) -> Piece:
    """One velocity and one tempo: the medians of the prompt."""
    frames = piece.frame_notes.copy()
    is_new = frames["onset"] >= PROMPT * FRAMES
    frames["velocity"][is_new] = np.median(frames["velocity"][~is_new])
    beat_sec = np.median(np.diff(piece.beats_sec[: PROMPT + 1]))
    new_sec = piece.beats_sec[PROMPT] + beat_sec * np.arange(1, BEATS - PROMPT + 1)
    return with_frames(piece, frames).on_beats(np.concatenate([piece.beats_sec[: PROMPT + 1], new_sec]))


def velocities_shuffled(piece: Piece, rng: np.random.Generator) -> Piece:
    """The velocities of the notes in another order."""
    frames = piece.frame_notes.copy()
    new = np.flatnonzero(frames["onset"] >= PROMPT * FRAMES)
    frames["velocity"][new] = frames["velocity"][rng.permutation(new)]
    return with_frames(piece, frames)


def bars_shuffled(piece: Piece, rng: np.random.Generator) -> Piece:
    """The bars in another order, notes where they begin."""
    frames = piece.frame_notes.copy()
    bar = frames["onset"] // (BAR * FRAMES)
    first, count = PROMPT // BAR, (BEATS - PROMPT) // BAR
    place = np.concatenate([np.arange(first), first + rng.permutation(count)])
    shift = (place[bar] - bar) * BAR * FRAMES
    for name in ("onset", "end"):
        frames[name] = np.minimum(frames[name] + shift, BEATS * FRAMES)
    return with_frames(piece, frames)


def half_transposed(piece: Piece, rng: np.random.Generator) -> Piece:
    """The second half of the 48 beats 1 to 6 semitones higher or lower."""
    frames = piece.frame_notes.copy()
    late = frames["onset"] >= (PROMPT + BEATS) // 2 * FRAMES
    frames["pitch"][late] = frames["pitch"][late].astype(int) + int(rng.choice([-1, 1])) * int(
        rng.integers(1, 7)
    )
    return with_frames(piece, frames)


ALTERATIONS: dict[str, Alteration] = {
    "human": lambda piece, rng: piece,
    "deadpan": deadpan,
    "velocities shuffled": velocities_shuffled,
    "bars shuffled": bars_shuffled,
    "second half transposed": half_transposed,
}


def bits(lm: PianoLM, pieces: list[Piece]) -> list[Row]:
    """Bits a note behind the prompt, in all and by kind of token, bar tokens left out."""
    v = lm.tokenizer.vocabulary
    groups = {
        name: kinds
        for name, kinds in KIND_GROUPS.items()
        if name in ("tempo", "pitch", "pattern", "velocity")
    }
    encoded = [lm.tokenizer.encode(piece).ids for piece in pieces]
    tokenized = [
        TokenizedPiece(
            ids,
            beat_positions(ids, v),
            {MASK: token_masks(lm.tokenizer.grammar, ids)},
            next(iter(v.tuning_id(ids)), None),
        )
        for ids in encoded
    ]
    rows = []
    for piece, ids, score in zip(pieces, encoded, score_pieces(lm.model, tokenized), strict=True):
        kinds, of_token = v.kind_of[ids], score[MASK]
        new = np.arange(ids.size) >= np.flatnonzero(kinds == Kind.TEMPO)[PROMPT]
        notes = within(piece.frame_notes, PROMPT, BEATS).size
        parts = {name: float(of_token[new & np.isin(kinds, of)].sum()) / notes for name, of in groups.items()}
        rows.append({"bits": sum(parts.values()), **{f"bits_{name}": value for name, value in parts.items()}})
    return rows


def agreement(dynamics: DynamicsModel, piece: Piece) -> float:
    """Correlation of the velocities with those that the dynamics model expects for these notes; 0 for flat ones."""
    new = piece.frame_notes["onset"] >= PROMPT * FRAMES
    played = piece.frame_notes["velocity"][new].astype(float)
    if played.std() == 0:
        return 0.0
    expected = dynamics.render(piece, temperature=0).frame_notes["velocity"][new].astype(float)
    return float(np.corrcoef(played, expected)[0, 1])


def measured(lm: PianoLM, dynamics: DynamicsModel, name: str, pieces: list[Piece]) -> list[Row]:
    rows = []
    for number, (piece, of_bits) in enumerate(zip(pieces, bits(lm, pieces), strict=True)):
        new = within(piece.frame_notes, PROMPT, BEATS)
        figures = {
            **of_bits,
            **statistics(piece, PROMPT, BEATS, key_of(within(piece.frame_notes, 0, PROMPT)), BAR),
            "velocity_sd": float(new["velocity"].std()),
            "velocity_r_expected": agreement(dynamics, piece),
        }
        rows.append({"version": name, "song": number, **{key: round(v, 4) for key, v in figures.items()}})
    return rows


def main(cells: Path, results: Path, scorer: str, models: list[str]) -> None:
    pieces, rows = excerpts(cells), read_rows(results)
    lm, dynamics = PianoLM.from_pretrained(scorer), DynamicsModel.from_pretrained()
    done = {row["version"] for row in rows}
    for name, alter in ALTERATIONS.items():
        if name not in done:
            rng = np.random.default_rng(0)
            rows += measured(lm, dynamics, name, [alter(piece, rng) for piece in pieces])
            write_rows(results, rows)
            print(name, flush=True)
    for model in models:
        name = f"continued by {Path(model).name}"
        if name not in done:
            prompts = {str(number): cut(piece, 0, PROMPT) for number, piece in enumerate(pieces)}
            made = PianoLM.from_pretrained(model).generate_pieces(prompts, beats=BEATS - PROMPT, end="never")
            rows += measured(lm, dynamics, name, [one.piece for one in made])
            write_rows(results, rows)
            print(name, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
