"""Checks that everything a model generates is well-formed and unchanged by writing and reading MIDI."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from report import headlines, tables

from experiments.config import untrained_llama
from experiments.results import RESULTS, publish, read_rows
from pianolm import PianoLM, PianoTokenizer, Piece
from pianolm.generation.results import GeneratedPiece
from pianolm.tokenizer.vocabulary import Kind

PIECES_AT_A_TIME = 50


def untrained(directory: Path, context: int) -> PianoLM:
    """A tiny model with random weights, which knows nothing of the grammar."""
    tokenizer = PianoTokenizer.from_pretrained(directory)
    return PianoLM(untrained_llama("tiny", tokenizer, context), tokenizer)


def generate(lm: PianoLM, arguments: argparse.Namespace) -> Iterator[GeneratedPiece]:
    settings = {"temperature": arguments.temperature, "top_p": arguments.top_p, "beats": arguments.beats}
    for first in range(0, arguments.pieces, PIECES_AT_A_TIME):
        count = min(PIECES_AT_A_TIME, arguments.pieces - first)
        yield from lm.generate_pieces(pieces=count, seed=first, **settings)


def notes_on_frames(piece: Piece) -> np.ndarray:
    """[N, 3] onset, end and pitch of every note, in frames of 1/48 beat."""
    notes = piece.frame_notes
    return np.stack([notes["onset"], notes["end"], notes["pitch"]], axis=1)


def through_midi(lm: PianoLM, piece: Piece, path: Path) -> Piece:
    """The piece after writing and reading MIDI, encoding and decoding."""
    piece.to_midi(path)
    return lm.tokenizer.decode(lm.tokenizer.encode(Piece.from_midi(path, beats="tempo_map")).ids)


def check_piece(lm: PianoLM, generated: GeneratedPiece, path: Path) -> Counter[str]:
    """Counts of one piece; a piece of rests has no notes to read from MIDI."""
    ids, piece = generated.ids, generated.piece
    counts = Counter(
        pieces=1,
        valid=int(lm.tokenizer.grammar.is_complete(ids)),
        without_skipped_tokens=int(piece.skipped == 0),
        with_notes=int(piece.notes.size > 0),
        beyond_context=int(ids.size > lm.model.config.max_position_embeddings),
        tokens=ids.size,
        beats=piece.n_beats,
        notes=piece.notes.size,
    )
    if piece.notes.size:
        back = through_midi(lm, piece, path)
        if np.array_equal(notes_on_frames(back), notes_on_frames(piece)):
            same = back.frame_notes["velocity"] == piece.frame_notes["velocity"]
            counts.update(same_notes_after_midi=1, same_velocities=int(same.sum()))
    return counts


def check(lm: PianoLM, arguments: argparse.Namespace) -> dict[str, Any]:
    """Generates and checks all pieces; returns the row of the model without its name."""
    counts: Counter[str] = Counter()
    kinds: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        for generated in generate(lm, arguments):
            counts += check_piece(lm, generated, Path(folder) / "piece.mid")
            kinds |= set(lm.tokenizer.vocabulary.kind_of[generated.ids].tolist())
    shown = (
        "pieces",
        "valid",
        "without_skipped_tokens",
        "with_notes",
        "same_notes_after_midi",
        "beyond_context",
    )
    return {
        **{key: counts[key] for key in shown},
        "valid_fraction": counts["valid"] / counts["pieces"],
        "without_skipped_fraction": counts["without_skipped_tokens"] / counts["pieces"],
        "same_notes_fraction": counts["same_notes_after_midi"] / max(counts["with_notes"], 1),
        "same_velocity_fraction": counts["same_velocities"] / max(counts["notes"], 1),
        **{key: counts[key] for key in ("tokens", "beats", "notes")},
        "kinds_of_token": sorted(Kind(kind).name for kind in kinds),
        "mode": lm.tokenizer.mode,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, help="directory of a published model; without one, an untrained one"
    )
    parser.add_argument("--tokenizer", type=Path, help="for the untrained model")
    parser.add_argument("--name", required=True, help="name of this model in results.jsonl")
    parser.add_argument("--pieces", type=int, default=1000)
    parser.add_argument("--beats", type=int, default=48)
    parser.add_argument(
        "--context", type=int, default=256, help="of the untrained model; short, so that caches refill"
    )
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--out", type=Path, help="folder of results.jsonl, metrics.json and README.md")
    arguments = parser.parse_args()
    if (arguments.model is None) == (arguments.tokenizer is None):
        parser.error("give --model, or --tokenizer for an untrained model")
    lm = (
        PianoLM.from_pretrained(arguments.model)
        if arguments.model
        else untrained(arguments.tokenizer, arguments.context)
    )
    found = check(lm, arguments)
    print(json.dumps(found, indent=2))
    if arguments.out:
        others = [row for row in read_rows(arguments.out / RESULTS) if row["model"] != arguments.name]
        rows = [*others, {"model": arguments.name, **found}]
        publish(arguments.out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    main()
