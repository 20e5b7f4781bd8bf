"""`evaluate=fill`: the measure on an untrained model, and bits that can be worked out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pianolm import PianoLM
from pianolm.data.cell_store import CellStore
from pianolm.errors import UserError
from pianolm.evaluation.fill import human_bits
from pianolm.evaluation.music_statistics import STATISTICS
from pianolm.lm.llama import FILL_SHARE
from pianolm.music.gap import Gap
from pianolm.run import execute
from tests.evaluation.toys import cell_store, model_directory, toy_piece
from tests.generation.test_fill import filling_lm, random_piece
from tests.tiny import tiny


def evaluated(root: Path, model: Path, *overrides: str) -> dict[str, float]:
    sizes = ("evaluate.gap_beats=4", "generate.audio=false")
    given = (f"upstream.model={model}", f"upstream.cells={root / 'cells'}")
    return execute(tiny(root, "stage=evaluate", "evaluate=fill", *sizes, *given, *overrides), root / "run")


def test_the_measure_writes_bits_tables_and_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pianolm.evaluation.fill.SIDE_BEATS", 4)
    model, _ = model_directory(tmp_path / "model", True, 256), cell_store(tmp_path / "cells")
    with pytest.raises(UserError, match=r"evaluate=fill: .* was not trained to fill gaps"):
        evaluated(tmp_path, model)
    config = model / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), FILL_SHARE: 0.3}))
    metrics = evaluated(tmp_path, model)
    assert (metrics["pieces"], metrics["pieces_left_out"]) == (2, 0)
    assert all(
        np.isfinite(metrics[name]) for name in ("notes_per_beat", "human_notes_per_beat", "js_pitch_class")
    )
    assert set(STATISTICS) & set(metrics)
    with (tmp_path / "run" / "bits.csv").open() as file:
        rows = list(csv.DictReader(file))
    notes = sum(int(row["notes"]) for row in rows)
    for key in ("both_sides", "past_only"):
        bits = sum(float(row[f"bits_{key}"]) for row in rows)
        assert metrics[f"bits_per_note_{key}"] == pytest.approx(bits / notes, abs=1e-3)
    assert metrics["bits_per_note_both_sides"] != metrics["bits_per_note_past_only"]
    assert (tmp_path / "run" / "index.html").is_file()
    assert len(list((tmp_path / "run" / "midi").glob("*_model.mid"))) == 2
    assert len(CellStore.open(tmp_path / "cells").pieces) == 2


@pytest.mark.parametrize("options", [{}, {"ties": "explicit", "bars": True, "tempo": "log50_tuned"}], ids=str)
def test_a_model_that_knows_nothing_needs_the_size_of_each_mask(options: dict[str, object]) -> None:
    lm: PianoLM = filling_lm(**options)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.zero_()
    piece = random_piece(np.random.default_rng(1))
    for gap in (Gap(4, 9), Gap(20, piece.n_beats)):
        found = human_bits(lm, piece, gap)
        assert found.notes > 0
        assert found.both_sides == pytest.approx(found.past_only, rel=1e-5)
        assert found.both_sides > found.notes * np.log2(20)
    assert human_bits(filling_lm(**options), toy_piece(1), Gap(3, 6)).both_sides > 0
