"""The music and the tokenizers of the fuzzing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from pianolm import PianoTokenizer, Piece
from pianolm.data.sources.demo import is_score
from pianolm.data.sources.demo.composer import compose
from pianolm.data.sources.folder import midi_files
from pianolm.errors import UserError
from pianolm.music.beats import FRAMES, BeatAnnotation
from pianolm.music.notes import make_notes
from pianolm.tokenizer.codebook import Patterns
from pianolm.tokenizer.codebook_fit import complete, fit_codebook
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.velocity.frame import FrameCodec
from pianolm.tokenizer.velocity.segment import SegmentCodec
from pianolm.tokenizer.vocabulary import ALLOTMENT, Vocabulary

TINY = Vocabulary(l1=16, l2=8, l3=4, velocity=8, reserved=380, tempo=5)
TINY_BARS = replace(TINY, reserved=sum(ALLOTMENT.values()))


def composed(count: int, seed: int = 0) -> list[Piece]:
    """Pieces as the demo composes them, every sixth a score."""
    pieces = []
    for index in range(count):
        music = compose(seed, index, is_score(index))
        notes = make_notes(music.onset_sec, music.offset_sec, music.pitch, music.velocity)
        pieces.append(Piece.from_notes(notes, BeatAnnotation(music.beats_sec, music.downbeat)))
    return pieces


def read_folder(root: Path, count: int) -> list[Piece]:
    """Up to `count` pieces evenly spread over a folder; files that cannot be read are skipped."""
    paths, pieces = midi_files(root), []
    for path in paths[:: max(len(paths) // count, 1)][:count]:
        try:
            pieces.append(Piece.from_midi(path))
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    return pieces


def segment_codec(codes: int, max_segments: int = 6) -> SegmentCodec:
    """A codec of the default form whose velocities are drawn, not learned."""
    rng = np.random.default_rng(0)
    return SegmentCodec.from_tables(
        [rng.integers(1, 128, (codes, n)).astype(np.uint8) for n in range(1, max_segments + 1)]
    )


def frame_codec(codes: int) -> FrameCodec:
    """A small codec of the frame form with random weights."""
    rng = np.random.default_rng(0)
    widths = {"encoder": [2 * FRAMES, 8, 4], "decoder": [4 + FRAMES, 8], "output": [8 + FRAMES, 8, FRAMES]}
    tensors = {"codebook": rng.normal(0, 0.5, (codes, 4)).astype(np.float32)}
    for name, sizes in widths.items():
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            tensors[f"{name}.{i}.weight"] = rng.normal(0, fan_in**-0.5, (fan_out, fan_in)).astype(np.float32)
            tensors[f"{name}.{i}.bias"] = rng.normal(0, 0.1, fan_out).astype(np.float32)
    return FrameCodec({"form": "frame", "codebook_size": codes, "widths": widths}, tensors)


def make_tokenizers(pieces: Sequence[Piece]) -> dict[str, PianoTokenizer]:
    """The full and a tiny vocabulary, without and with velocity; three levels, bars, ties, a tuned tempo.

    The full one has a codebook fitted to the pieces and a codec of the default form; the tiny one has seen no music,
    so that most of its cells need L4, and has a codec of the frame form with fewer codes than velocity ids.
    """
    sustain = np.concatenate([piece.cells.sustain for piece in pieces])
    onset = np.concatenate([piece.cells.onset for piece in pieces])
    nothing = Patterns(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    full = fit_codebook(sustain, onset, Vocabulary(), "frequency").codebook
    tiny, tempo = complete([nothing] * 3, TINY), TempoBins(bins=TINY.tempo)
    with_bars, tuned = complete([nothing] * 3, TINY_BARS), TempoBins("log50_tuned", TINY.tempo)
    return {
        "full base": PianoTokenizer(full, TempoBins()),
        "full velocity": PianoTokenizer(full, TempoBins(), segment_codec(512)),
        "tiny base": PianoTokenizer(tiny, tempo),
        "tiny velocity": PianoTokenizer(tiny, tempo, frame_codec(TINY.velocity - 3)),
        "full velocity three levels": PianoTokenizer(
            full, TempoBins("published"), segment_codec(512), exact=False
        ),
        "tiny base bars": PianoTokenizer(with_bars, tempo, bars=True),
        "full velocity implicit": PianoTokenizer(full, TempoBins(), segment_codec(512), ties="implicit"),
        "tiny base implicit bars": PianoTokenizer(with_bars, tempo, ties="implicit", bars=True),
        "full velocity explicit": PianoTokenizer(full, TempoBins(), segment_codec(512), ties="explicit"),
        "tiny base explicit bars": PianoTokenizer(with_bars, tempo, ties="explicit", bars=True),
        "tiny base tuned": PianoTokenizer(with_bars, tuned),
        "full velocity explicit bars tuned": PianoTokenizer(
            full, TempoBins("log50_tuned"), segment_codec(512), ties="explicit", bars=True
        ),
    }
