"""`evaluate=lm`: each token scored once, as a full forward pass scores it; with and without velocities."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from pianolm import PianoLM, PianoTokenizer, Piece
from pianolm.data.cell_store import CellStore, CellStoreWriter, PieceRow
from pianolm.data.token_store import beat_positions
from pianolm.errors import UserError
from pianolm.evaluation.bits import Given, sliding_windows, token_bits
from pianolm.lm.checkpoint import without_progress_bars
from pianolm.lm.module import build_llama
from pianolm.music.notes import make_notes
from pianolm.run import execute
from pianolm.tokenizer.codebook import Patterns
from pianolm.tokenizer.codebook_fit import complete
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.token_mask import legal_ids
from pianolm.tokenizer.vocabulary import Kind, Vocabulary
from tests.test_chain import only, run_cli
from tests.tiny import TINY, tiny
from tests.tokenizer.velocity.test_segment import random_segment_codec
from tests.toy_tokens import MODEL, VOCABULARY, sequence

CONTEXT = 48
GRAMMAR = Grammar(VOCABULARY, velocity=True, silent=np.zeros(VOCABULARY.size, bool))
MidiFile = Callable[..., Path]


def toy_model(context: int, vocabulary: Vocabulary = VOCABULARY, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    model = build_llama(MODEL, vocabulary.size, vocabulary.pad, vocabulary.bos, vocabulary.eos, context)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform, so that it matters what a token sees
    return model.eval()


def naive_bits(model: LlamaForCausalLM, ids: NDArray[np.int64], start: int, at: int) -> tuple[float, float]:
    """Bits of one token after those from `start` on, by a forward pass of its own: of all ids, of legal ones."""
    state = GRAMMAR.start()
    for token in ids[:at].tolist():
        state = GRAMMAR.advance(state, token)
    with torch.no_grad():
        p = model(torch.from_numpy(ids[None, start:at])).logits[0, -1].double().softmax(-1).numpy()
    return -math.log2(p[ids[at]] / p.sum()), -math.log2(p[ids[at]] / p[GRAMMAR.allowed(state)].sum())


def given_piece(ids: NDArray[np.int64], begins: NDArray[np.int64]) -> Given:
    return Given(ids, begins, legal_ids(GRAMMAR, ids))


def model_directory(path: Path, velocity: bool, context: int = CONTEXT) -> Path:
    """A model that has learned nothing, as the stages publish it."""
    none = np.zeros(0, np.uint64)
    codebook = complete([Patterns(none, none)] * 3, Vocabulary())
    codec = random_segment_codec(64) if velocity else None
    PianoTokenizer(codebook, TempoBins(), codec).save_pretrained(path / "tokenizer")
    with without_progress_bars():
        toy_model(context, Vocabulary()).save_pretrained(path)
    return path


def cell_store(path: Path, flat: tuple[bool, ...] = (False, False), kind: str = "performance") -> Path:
    """Pieces of 24 held and struck notes each, all for validation."""
    with CellStoreWriter(path) as store:
        for number, is_flat in enumerate(flat):
            piece = toy_piece(number).with_flat(is_flat)
            cells = piece.cells
            row = PieceRow(
                id=f"piece {number}",
                source="toy",
                composition="toy",
                split="validation",
                kind=kind,
                flat=is_flat,
                licence="",
                path=f"{number}.mid",
                notes=cells.struck_notes,
                cells=len(cells),
                beats=piece.n_beats,
                segments=cells.segment_velocity.size,
            )
            store.add(row, cells, piece.beats_sec, np.full(piece.beats_sec.size, -1, np.int8))
    return path


def toy_piece(seed: int) -> Piece:
    rng = np.random.default_rng(seed)
    onset = np.sort(rng.uniform(0, 8, 24))
    notes = make_notes(
        onset, onset + rng.uniform(0.1, 1.5, 24), rng.integers(40, 80, 24), rng.integers(1, 128, 24)
    )
    return Piece.from_notes(notes, np.arange(17) * 0.5)


def evaluated(tmp_path: Path, *overrides: str) -> dict[str, float]:
    cfg = tiny(tmp_path, "stage=evaluate", "evaluate=lm", *overrides)
    return execute(cfg, tmp_path / "run")


@given(st.data())
def test_windows_score_each_target_once_with_the_context_promised(data: st.DataObject) -> None:
    context = data.draw(st.integers(1, 40))
    stride = data.draw(st.integers(1, context))
    n_tokens = data.draw(st.integers(2, 200))
    later = data.draw(st.sets(st.integers(1, n_tokens - 1)))
    begins = np.array([0, *sorted(later)])
    windows = list(sliding_windows(n_tokens, begins, context, stride))
    scored = np.concatenate([np.arange(w.scored, w.stop) for w in windows])
    assert np.array_equal(scored, np.arange(1, n_tokens))
    for window, before in zip(windows[1:], windows, strict=False):
        assert window.stop - window.start - 1 <= context
        assert window.scored - window.start >= context + 1 - stride
        assert window.start in begins or not np.isin(np.arange(before.start + 1, window.start), begins).any()


@pytest.mark.parametrize("stride", [1, 5, 24, 32])
def test_each_token_costs_what_a_pass_over_its_window_says(stride: int) -> None:
    """The windows are counted here in a second way, and each token is scored alone."""
    model, context = toy_model(32), 32
    pieces = [sequence(seed, beats=beats) for seed, beats in ((0, 20), (1, 1), (2, 9))]
    begins = [beat_positions(ids, VOCABULARY) for ids in pieces]
    given_pieces = [given_piece(*piece) for piece in zip(pieces, begins, strict=True)]
    shown: list[int] = []
    found = list(
        token_bits(model, given_pieces, stride, 3 * context, lambda _, labels: shown.extend(labels.tolist()))
    )
    assert shown == np.concatenate([ids[1:] for ids in pieces]).tolist()
    assert max(ids.size for ids in pieces) > 3 * context
    for ids, beats, bits in zip(pieces, begins, found, strict=True):
        start = 0
        assert bits.free[0] == bits.legal[0] == 0
        assert (bits.legal <= bits.free + 1e-6).all()
        for at in range(1, ids.size):
            if at > start + context:
                aligned = [b for b in beats if start < b <= start + stride]
                start = int(aligned[-1]) if aligned else start + stride
            expected = naive_bits(model, ids, start, at)
            assert (bits.free[at], bits.legal[at]) == pytest.approx(expected, abs=1e-4)


def test_a_piece_within_the_context_is_one_full_pass() -> None:
    model, ids = toy_model(512), sequence(3, beats=12)
    (bits,) = token_bits(model, [given_piece(ids, np.array([0]))], 256, 4096)
    with torch.no_grad():
        log_p = torch.log_softmax(model(torch.from_numpy(ids[None])).logits[0].double(), -1).numpy()
    expected = -log_p[np.arange(ids.size - 1), ids[1:]] / math.log(2)
    assert np.allclose(bits.free[1:], expected, atol=1e-4)


@pytest.mark.parametrize("velocity", [False, True])
def test_the_stage_adds_up_tokens_notes_and_seconds(tmp_path: Path, velocity: bool) -> None:
    model, cells = model_directory(tmp_path / "model", velocity), cell_store(tmp_path / "cells")
    metrics = evaluated(tmp_path, f"upstream.model={model}", f"upstream.cells={cells}", "evaluate.stride=10")
    lm, store = PianoLM.from_pretrained(model), CellStore.open(cells)
    bits, notes, tokens, seconds, in_grammar = dict.fromkeys(Kind, 0.0), 0, 0, 0.0, 0.0
    for index in range(2):
        piece = Piece.from_cells(store.cells(index), np.asarray(store.beats_sec(index)))
        ids = lm.tokenizer.encode(piece).ids
        legal = legal_ids(lm.tokenizer.grammar, ids)
        piece_given = Given(ids, beat_positions(ids, lm.tokenizer.vocabulary), legal)
        (found,) = token_bits(lm.model, [piece_given], 10, 64)
        for at, kind in enumerate(lm.tokenizer.vocabulary.kind_of[ids]):
            bits[Kind(kind)] += found.free[at]
        in_grammar += found.legal.sum()
        notes += int(lm.tokenizer.strikes_per_id[ids].sum())
        tokens, seconds = tokens + ids.size, seconds + piece.beats_sec[-1] - piece.beats_sec[0]
    assert notes == 48 < sum(len(store.cells(i)) for i in range(2)), "notes held over a beat count once"
    assert (metrics["pieces"], metrics["notes"], metrics["tokens"]) == (2, notes, tokens)
    assert metrics["tokens_per_note"] == tokens / notes
    assert metrics["bits_per_note"] == pytest.approx(sum(bits.values()) / notes, rel=1e-5)
    assert metrics["bits_per_second"] == pytest.approx(sum(bits.values()) / seconds, rel=1e-5)
    assert metrics["bits_per_note_pitch"] == pytest.approx(bits[Kind.PITCH] / notes, rel=1e-5)
    assert metrics["bits_per_note_tempo"] == pytest.approx(
        (bits[Kind.TEMPO] + bits[Kind.EOS]) / notes, rel=1e-5
    )
    assert metrics["grammar_bits_per_note"] == pytest.approx(in_grammar / notes, rel=1e-5)
    assert metrics["grammar_bits_per_note"] < metrics["bits_per_note"] - 0.1
    parts = [value for key, value in metrics.items() if key.startswith("bits_per_note_")]
    assert len(parts) == 3 + velocity
    assert sum(parts) == pytest.approx(metrics["bits_per_note"])
    assert metrics["least_context"] == CONTEXT + 1 - 10
    with (tmp_path / "run" / "pieces.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["piece 0", "piece 1"]
    assert sum(float(row["bits"]) for row in rows) == pytest.approx(sum(bits.values()), abs=0.01)
    assert sum(float(row["grammar_bits"]) for row in rows) == pytest.approx(in_grammar, abs=0.01)
    for row in rows:
        assert float(row["bits_per_note"]) == pytest.approx(float(row["bits"]) / int(row["notes"]), abs=0.001)
        kinds = [
            float(value) for key, value in row.items() if key.startswith("bits_") and key != "bits_per_note"
        ]
        assert sum(kinds) == pytest.approx(float(row["bits"]), abs=0.01)
    assert not (tmp_path / "artifacts").exists(), "nothing had to be built"


def test_of_a_model_that_learned_under_the_grammar_all_bits_are_in_it(tmp_path: Path) -> None:
    given_parts = [
        f"upstream.model={model_directory(tmp_path / 'model', True)}",
        f"upstream.cells={cell_store(tmp_path / 'cells')}",
    ]
    free = evaluated(tmp_path, *given_parts)
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "learned_in_grammar": True}))
    found = evaluated(tmp_path, *given_parts)
    assert found["grammar_bits_per_note"] == pytest.approx(free["grammar_bits_per_note"])
    assert found["bits_per_note"] == pytest.approx(free["grammar_bits_per_note"])
    assert found["bits_per_note_pitch"] < free["bits_per_note_pitch"] - 0.01


def test_flat_performances_count_for_a_model_without_velocities_only(tmp_path: Path) -> None:
    given_cells = f"upstream.cells={cell_store(tmp_path / 'cells', (True, False, True))}"
    base, full = (model_directory(tmp_path / str(velocity), velocity) for velocity in (False, True))
    metrics = evaluated(tmp_path, given_cells, f"upstream.model={base}")
    assert (metrics["pieces"], metrics["flat_pieces_left_out"], metrics["notes"]) == (3, 0, 72)
    metrics = evaluated(tmp_path, given_cells, f"upstream.model={full}")
    assert (metrics["pieces"], metrics["flat_pieces_left_out"], metrics["notes"]) == (1, 2, 24)
    all_flat = f"upstream.cells={cell_store(tmp_path / 'flat', (True,))}"
    with pytest.raises(UserError, match="velocities of all 1 performances say nothing"):
        evaluated(tmp_path, all_flat, f"upstream.model={full}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluate.stride=0"], "evaluate.stride=0 found, expected a whole number of tokens from 1 to 48"),
        (["evaluate.stride=49"], "evaluate.stride=49 found"),
        (
            ["evaluate.split=dev"],
            "evaluate.split='dev' found, expected one of train, validation, test or all",
        ),
        (["evaluate.split=test"], "no performance there; its performances are in validation"),
        (["evaluate.name=bits"], "evaluate.name='bits' found, expected one of roundtrip, lm"),
        (["upstream.model={tmp}/cells"], "no config.json; expected a directory published by stage=base"),
        (["upstream.cells={tmp}/model"], "expected a directory published by stage=prepare"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, overrides: list[str], message: str) -> None:
    given_parts = [
        f"upstream.model={model_directory(tmp_path / 'model', True)}",
        f"upstream.cells={cell_store(tmp_path / 'cells')}",
    ]
    with pytest.raises(UserError, match=message):
        evaluated(tmp_path, *given_parts, *(override.format(tmp=tmp_path) for override in overrides))


def test_scores_are_no_performances(tmp_path: Path) -> None:
    cells = cell_store(tmp_path / "cells", kind="score")
    model = model_directory(tmp_path / "model", False)
    with pytest.raises(UserError, match="its performances are in no split"):
        evaluated(tmp_path, f"upstream.model={model}", f"upstream.cells={cells}")


def test_from_the_command_line_a_model_of_one_source_measures_another(
    tmp_path: Path, midi_file: MidiFile
) -> None:
    """The chain trains a tiny model on the demo; then its directory measures a folder of MIDI files."""
    places = (
        f"paths.artifacts={tmp_path}/artifacts",
        f"paths.work={tmp_path}/work",
        f"paths.outputs={tmp_path}/out",
    )
    settings = [setting for setting in (*TINY, *places) if not setting.startswith("data.")]
    metrics = evaluated(tmp_path, "tokenizer=base")
    model = only(tmp_path, "base")
    trained = json.loads((model / "artifact.json").read_text())["metrics"]
    # The validation of training scores evenly spaced windows of the same pieces with less context.
    assert metrics["bits_per_note"] == pytest.approx(trained["val/bits_per_note"], rel=0.1)
    for i in range(2):
        midi_file(tmp_path / f"music/{i}.mid", seed=i)
    folder = ("data=folder", f"data.root={tmp_path}/music", "evaluate.split=all", f"upstream.model={model}")
    done = run_cli(tmp_path, *settings, "stage=evaluate", "evaluate=lm", *folder)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())
    assert (metrics["pieces"], metrics["notes"]) == (2, 64)
    assert (Path(metrics["artifact"]) / "pieces.csv").is_file()
