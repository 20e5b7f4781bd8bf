"""Bars and explicit ties through the whole chain: from the annotations to the music."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pianolm import PianoTokenizer
from pianolm.data.cell_store import CellStore
from pianolm.data.token_store import TokenStore
from pianolm.errors import UserError
from pianolm.run import execute
from pianolm.tokenizer.vocabulary import Kind
from tests.test_chain import artifact_of_chain, only
from tests.tiny import tiny

pytestmark = pytest.mark.usefixtures("without_curves")


@pytest.fixture(scope="module")
def with_bars(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain with bars, from the cells, codebook and codec that are there."""
    root = tmp_path_factory.mktemp("bars")
    prompt = sorted((only(chain, "prepare") / "midi").glob("*.mid"))[0]
    settings = ("stage=generate", f"prompt={prompt}", "generate.prompt_beats=6", *bars_of(chain))
    execute(tiny(root, *settings, "generate.audio=false", "generate.page=false"), root / "run")
    return root


def bars_of(chain: Path) -> list[str]:
    made = {"cells": "prepare", "codebook": "codebook", "velvq": "velvq"}
    given = (f"upstream.{role}={artifact_of_chain(chain, stage)}" for role, stage in made.items())
    return ["tokenizer.bars=true", *given]


def test_bars_go_through_the_chain_from_the_annotations_to_the_music(chain: Path, with_bars: Path) -> None:
    metrics = json.loads((with_bars / "run" / "metrics.json").read_text())
    assert metrics["valid_fraction"] == 1.0
    cells = CellStore.open(only(chain, "prepare"))
    for mode in ("base", "velocity"):
        tokens = TokenStore.open(only(with_bars, "tokenize", mode))
        tokenizer = PianoTokenizer.from_pretrained(tokens.directory)
        plain = PianoTokenizer.from_pretrained(only(chain, "tokenize", mode))
        assert tokenizer.hashes["vocabulary"] == f"{plain.hashes['vocabulary']}-bars"
        for index, row in enumerate(cells.pieces):
            ids = np.asarray(tokens.ids(index), np.int64)
            is_bar = tokenizer.vocabulary.kind_of[ids] == Kind.BAR
            piece = tokenizer.decode(ids)
            starts = cells.bar_starts(index)
            starts = starts[starts < row.beats]
            assert is_bar.sum() == row.beats, "the demo marks its downbeats"
            assert np.array_equal(piece.bar_starts[piece.bar_starts >= starts[0]], starts)
            beats_sec = np.asarray(cells.beats_sec(index))
            assert np.array_equal(ids[~is_bar], plain.encode_cells(cells.cells(index), beats_sec))
    for stage in ("base", "finetune"):
        found, before = (
            json.loads((only(root, stage) / "artifact.json").read_text())["metrics"]
            for root in (with_bars, chain)
        )
        assert "val/loss_bar" not in before
        assert found["val/loss_bar"] > 0


@pytest.mark.slow
def test_explicit_ties_go_through_the_chain(chain: Path, tmp_path: Path) -> None:
    prompt = sorted((only(chain, "prepare") / "midi").glob("*.mid"))[0]
    given = ["tokenizer=ties", "loader.transpose=3", "loss.constrained=true", *bars_of(chain)]
    settings = ("stage=generate", f"prompt={prompt}", "generate.prompt_beats=6", *given)
    execute(tiny(tmp_path, *settings, "generate.audio=false", "generate.page=false"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["valid_fraction"] == 1.0
    cells = CellStore.open(only(chain, "prepare"))
    for mode in ("base", "velocity"):
        tokens = TokenStore.open(only(tmp_path, "tokenize", mode))
        tokenizer = PianoTokenizer.from_pretrained(tokens.directory)
        plain = PianoTokenizer.from_pretrained(only(chain, "tokenize", mode))
        assert tokenizer.hashes["vocabulary"] == f"{plain.hashes['vocabulary']}-bars-explicit"
        for index in range(len(cells.pieces)):
            back, true = tokenizer.decode(np.asarray(tokens.ids(index), np.int64)), cells.cells(index)
            assert back.skipped == 0
            assert np.array_equal(back.cells.sustain, true.sustain)
            assert np.array_equal(back.cells.onset, true.onset)
    model, data = f"upstream.model={only(tmp_path, 'finetune')}", f"upstream.cells={only(chain, 'prepare')}"
    scored = execute(tiny(tmp_path, "stage=evaluate", "evaluate=lm", model, data), tmp_path / "lm")
    assert scored["bits_per_note"] > 0
    dynamics = ("stage=evaluate", "evaluate=dynamics", "evaluate.pieces=1", "evaluate.beats=8", model, data)
    assert execute(tiny(tmp_path, *dynamics), tmp_path / "dynamics")["velocity_mae"] > 0
    roundtrip = ("stage=evaluate", "evaluate=roundtrip", "evaluate.split=all")
    both = [
        execute(
            tiny(tmp_path, *roundtrip, f"upstream.tokenizer={only(root, 'tokenize', 'velocity')}"),
            tmp_path / f"roundtrip {root.name}",
        )
        for root in (chain, tmp_path)
    ]
    for key in ("notes", "notes_exact"):
        assert both[0][key] == both[1][key], key
    for key in ("onset_ms_p95", "offset_ms_p95", "beat_ms_p95"):  # on a scale of equal steps, shifted
        assert both[0][key] == pytest.approx(both[1][key], rel=0.2), key


def test_bits_of_bars_are_a_kind_of_their_own(chain: Path, with_bars: Path) -> None:
    lm = ("stage=evaluate", "evaluate=lm", f"upstream.cells={only(chain, 'prepare')}")
    for root, extra in ((with_bars, {"bar"}), (chain, set())):
        model = f"upstream.model={only(root, 'finetune')}"
        metrics = execute(tiny(with_bars, *lm, model), with_bars / f"lm {len(extra)}")
        parts = {key.rpartition("_")[2] for key in metrics if key.startswith("bits_per_note_")}
        assert parts == {"tempo", "pitch", "pattern", "velocity", *extra}
        total = sum(value for key, value in metrics.items() if key.startswith("bits_per_note_"))
        assert total == pytest.approx(metrics["bits_per_note"])
        assert metrics.get("bits_per_note_bar", 0.0) >= 0
    dynamics = ("stage=evaluate", "evaluate=dynamics", "evaluate.pieces=1", "evaluate.beats=8")
    given = (f"upstream.cells={only(chain, 'prepare')}", f"upstream.model={only(with_bars, 'finetune')}")
    assert execute(tiny(with_bars, *dynamics, *given), with_bars / "dynamics")["notes"] > 0


def test_a_base_model_without_bars_is_no_start_for_one_with_bars(chain: Path, with_bars: Path) -> None:
    with pytest.raises(UserError, match=r"trained with vocabulary \w+, .* have vocabulary \w+-bars"):
        execute(
            tiny(with_bars, "stage=finetune", *bars_of(chain), f"upstream.base={only(chain, 'base')}"),
            with_bars / "run2",
        )
