"""`evaluate=lm`: what the stage reports, with and without velocities, unconstrained and constrained."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pianolm import PianoLM, Piece
from pianolm.data.cell_store import CellStore
from pianolm.data.token_store import beat_positions
from pianolm.errors import UserError
from pianolm.evaluation.bits import UNCONSTRAINED, TokenizedPiece, score_pieces
from pianolm.run import execute
from pianolm.tokenizer.token_mask import token_masks
from pianolm.tokenizer.vocabulary import Kind
from tests.evaluation.toys import CONTEXT, cell_store, model_directory
from tests.test_chain import only
from tests.tiny import tiny

MidiFile = Callable[..., Path]


def evaluated(tmp_path: Path, *overrides: str) -> dict[str, float]:
    cfg = tiny(tmp_path, "stage=evaluate", "evaluate=lm", *overrides)
    return execute(cfg, tmp_path / "run")


@pytest.mark.parametrize("velocity", [False, True])
def test_the_stage_adds_up_tokens_notes_and_seconds(tmp_path: Path, velocity: bool) -> None:
    model, cells = model_directory(tmp_path / "model", velocity), cell_store(tmp_path / "cells")
    metrics = evaluated(tmp_path, f"upstream.model={model}", f"upstream.cells={cells}")
    lm, store = PianoLM.from_pretrained(model), CellStore.open(cells)
    bits, notes, tokens, seconds, constrained = dict.fromkeys(Kind, 0.0), 0, 0, 0.0, 0.0
    for index in range(2):
        piece = Piece.from_cells(store.cells(index), np.asarray(store.beats_sec(index)))
        ids = lm.tokenizer.encode(piece).ids
        masks = {"constrained": token_masks(lm.tokenizer.grammar, ids)}
        tokenized = TokenizedPiece(ids, beat_positions(ids, lm.tokenizer.vocabulary), masks)
        (found,) = score_pieces(lm.model, [tokenized], batch_tokens=64)
        for at, kind in enumerate(lm.tokenizer.vocabulary.kind_of[ids]):
            bits[Kind(kind)] += found[UNCONSTRAINED][at]
        constrained += found["constrained"].sum()
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
    assert metrics["constrained_bits_per_note"] == pytest.approx(constrained / notes, rel=1e-5)
    assert metrics["constrained_bits_per_note"] < metrics["bits_per_note"] - 0.1
    for name in ("bits_per_note", "constrained_bits_per_note"):
        parts = [value for key, value in metrics.items() if key.startswith(f"{name}_")]
        assert len(parts) == 3 + velocity
        assert sum(parts) == pytest.approx(metrics[name])
    assert metrics["least_context"] == CONTEXT + 1 - CONTEXT // 2
    with (tmp_path / "run" / "pieces.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["piece 0", "piece 1"]
    assert sum(float(row["bits"]) for row in rows) == pytest.approx(sum(bits.values()), abs=0.01)
    assert sum(float(row["constrained_bits"]) for row in rows) == pytest.approx(constrained, abs=0.01)
    for row in rows:
        assert float(row["bits_per_note"]) == pytest.approx(float(row["bits"]) / int(row["notes"]), abs=0.001)
        kinds = [
            float(value) for key, value in row.items() if key.startswith("bits_") and key != "bits_per_note"
        ]
        assert sum(kinds) == pytest.approx(float(row["bits"]), abs=0.01)
    assert not (tmp_path / "artifacts").exists(), "nothing had to be built"


def test_all_bits_of_a_model_trained_constrained_are_constrained(tmp_path: Path) -> None:
    given_parts = [
        f"upstream.model={model_directory(tmp_path / 'model', True)}",
        f"upstream.cells={cell_store(tmp_path / 'cells')}",
    ]
    free = evaluated(tmp_path, *given_parts)
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "constrained_loss": True}))
    found = evaluated(tmp_path, *given_parts)
    assert found["constrained_bits_per_note"] == pytest.approx(free["constrained_bits_per_note"])
    assert found["bits_per_note"] == pytest.approx(free["constrained_bits_per_note"])
    assert found["bits_per_note_pitch"] < free["bits_per_note_pitch"] - 0.01


def test_flat_performances_count_for_a_model_without_velocities_only(tmp_path: Path) -> None:
    given_cells = f"upstream.cells={cell_store(tmp_path / 'cells', (True, False, True))}"
    base, full = (model_directory(tmp_path / str(velocity), velocity) for velocity in (False, True))
    metrics = evaluated(tmp_path, given_cells, f"upstream.model={base}")
    assert (metrics["pieces"], metrics["flat_pieces_left_out"], metrics["notes"]) == (3, 0, 72)
    metrics = evaluated(tmp_path, given_cells, f"upstream.model={full}")
    assert (metrics["pieces"], metrics["flat_pieces_left_out"], metrics["notes"]) == (1, 2, 24)
    all_flat = f"upstream.cells={cell_store(tmp_path / 'flat', (True,))}"
    with pytest.raises(UserError, match="all 1 performances have flat velocities"):
        evaluated(tmp_path, all_flat, f"upstream.model={full}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["evaluate.split=dev"],
            "evaluate.split=dev found, expected one of train, validation, test, all",
        ),
        (["evaluate.split=test"], "no performance in it; its performances are in validation"),
        (
            ["evaluate.name=bits"],
            "evaluate.name='bits' found, expected one of beats, dynamics, fill, lm, roundtrip",
        ),
        (["upstream.model={tmp}/cells"], "no config.json; expected a directory published by stage=base"),
        (["upstream.cells={tmp}/model"], "expected a directory published by stage=prepare"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(tmp_path: Path, overrides: list[str], message: str) -> None:
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


def test_a_model_trained_on_one_source_measures_another(tmp_path: Path, midi_file: MidiFile) -> None:
    """A tiny model is built on the demo; then its directory measures a folder of MIDI files."""
    metrics = evaluated(tmp_path, "tokenizer=base")
    model = only(tmp_path, "base")
    trained = json.loads((model / "artifact.json").read_text())["metrics"]
    # The validation of training scores evenly spaced windows of the same pieces with less context.
    assert metrics["bits_per_note"] == pytest.approx(trained["val/bits_per_note"], rel=0.1)
    for i in range(2):
        midi_file(tmp_path / f"music/{i}.mid", seed=i)
    folder = ("data=folder", f"data.root={tmp_path}/music", "evaluate.split=all", f"upstream.model={model}")
    metrics = evaluated(tmp_path, *folder)
    assert (metrics["pieces"], metrics["notes"]) == (2, 64)
    assert (tmp_path / "run" / "pieces.csv").is_file()
