"""Checks that everything a model generates is well-formed and unchanged by writing and reading MIDI."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from report import headlines, tables

from experiments.results import RESULTS, publish, read_rows
from pianolm import PianoLM, PianoTokenizer, Piece
from pianolm.generation.results import GeneratedPiece
from pianolm.lm.model import build_llama
from pianolm.tokenizer.vocabulary import Kind

CONF = Path(__file__).parents[2] / "conf" / "model"
AT_A_TIME = 50


def untrained(tokenizer: PianoTokenizer, context: int) -> PianoLM:
    torch.manual_seed(0)
    settings = {**yaml.safe_load((CONF / "tiny.yaml").read_text("utf-8")), "embedding": "table"}
    v = tokenizer.vocabulary
    return PianoLM(build_llama(settings, v.size, v.pad, v.bos, v.eos, context), tokenizer)


def generate(lm: PianoLM, arguments: argparse.Namespace) -> Iterator[GeneratedPiece]:
    settings = {"temperature": arguments.temperature, "top_p": arguments.top_p, "beats": arguments.beats}
    for first in range(0, arguments.pieces, AT_A_TIME):
        count = min(AT_A_TIME, arguments.pieces - first)
        yield from lm.generate_pieces(pieces=count, seed=first, **settings)


def notes_on_frames(piece: Piece) -> np.ndarray:
    """[N, 3] onset, end and pitch of every note, in frames of 1/48 beat."""
    notes = piece.frame_notes
    return np.stack([notes["onset"], notes["end"], notes["pitch"]], axis=1)


def through_midi(lm: PianoLM, piece: Piece, path: Path) -> Piece:
    """The piece after MIDI, written and read, and tokens."""
    piece.to_midi(path)
    return lm.tokenizer.decode(lm.tokenizer.encode(Piece.from_midi(path, beats="tempo_map")).ids)


def check(lm: PianoLM, arguments: argparse.Namespace) -> dict[str, Any]:
    counts = dict.fromkeys(
        (
            "pieces",
            "valid",
            "without_skipped_tokens",
            "with_notes",
            "same_notes_after_midi",
            "beyond_context",
        ),
        0,
    )
    tokens = beats = notes = velocities = 0
    levels: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        for one in generate(lm, arguments):
            counts["pieces"] += 1
            counts["valid"] += lm.tokenizer.grammar.is_complete(one.ids)
            counts["without_skipped_tokens"] += one.piece.skipped == 0
            counts["beyond_context"] += one.ids.size > lm.model.config.max_position_embeddings
            tokens, beats, notes = (
                tokens + one.ids.size,
                beats + one.piece.n_beats,
                notes + one.piece.notes.size,
            )
            levels |= set(lm.tokenizer.vocabulary.kind_of[one.ids].tolist())
            if one.piece.notes.size == 0:
                continue
            counts["with_notes"] += 1
            back = through_midi(lm, one.piece, Path(folder) / "piece.mid")
            same = np.array_equal(notes_on_frames(back), notes_on_frames(one.piece))
            counts["same_notes_after_midi"] += same
            if same:
                velocities += int((back.frame_notes["velocity"] == one.piece.frame_notes["velocity"]).sum())
    return {
        **counts,
        "valid_fraction": counts["valid"] / counts["pieces"],
        "without_skipped_fraction": counts["without_skipped_tokens"] / counts["pieces"],
        "same_notes_fraction": counts["same_notes_after_midi"] / max(counts["with_notes"], 1),
        "same_velocity_fraction": velocities / max(notes, 1),
        "tokens": tokens,
        "beats": beats,
        "notes": notes,
        "kinds_of_token": sorted(Kind(kind).name for kind in levels),
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
        else untrained(PianoTokenizer.from_pretrained(arguments.tokenizer), arguments.context)
    )
    found = check(lm, arguments)
    print(json.dumps(found, indent=2))
    if arguments.out:
        others = [row for row in read_rows(arguments.out / RESULTS) if row["model"] != arguments.name]
        rows = [*others, {"model": arguments.name, **found}]
        publish(arguments.out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    main()
