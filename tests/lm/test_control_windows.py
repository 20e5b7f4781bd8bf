from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pianolm.errors import UserError
from pianolm.lm.control_windows import ControlWindows
from pianolm.lm.datamodule import LMDataModule, TrainBatches
from pianolm.lm.loss import IGNORE
from pianolm.lm.masked_targets import MaskedTargets
from pianolm.lm.settings import language_model_settings
from pianolm.lm.train import train_language_model
from pianolm.lm.window_rewriter import DRAWN
from pianolm.music.beats import FRAMES
from pianolm.tokenizer.controls import density_level, loudness_level, without_controls
from pianolm.tokenizer.vocabulary import CONTROLS, Kind
from tests.lm.stage_toys import context, plain_config, random_ids, write_tokens
from tests.tokenizer.toys import Layout, made
from tests.toy_tokens import settings

TOKENIZER = made(Layout(True, "explicit", bars=True, tempo="log50_tuned"))
V = TOKENIZER.vocabulary


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"), TOKENIZER)


def batches(tokens: Path, rank: int = 0, processes: int = 1, **changes: Any) -> TrainBatches:
    given = settings(context=128, batch_tokens=1024, **changes)
    module = LMDataModule(tokens, given, 8, seed=3, processes=processes)
    module.setup("fit")
    assert module._order is not None
    return TrainBatches(module._reader, module._order, module.plan, rank, 100)


def test_levels_are_those_of_the_music_and_stand_before_tempi() -> None:
    rng, windows = np.random.default_rng(0), ControlWindows(TOKENIZER)
    ids, _ = random_ids(TOKENIZER, 1, beats=40)
    seen = dict.fromkeys(CONTROLS, 0)
    for flat in [False] * 100 + [True] * 20:
        drawn = rng.random(DRAWN - 1)
        found = windows.sequence(ids, drawn, flat)
        assert found is not None
        assert found.ids.size == ids.size
        kinds = V.kind_of[found.ids]
        told = np.isin(kinds, CONTROLS)
        assert np.array_equal(~told, found.scored)
        assert TOKENIZER.grammar.first_problem(found.ids) is None
        if flat:
            assert not (kinds == Kind.LOUDNESS).any()
            assert np.array_equal(without_controls(V, found.ids), ids[: (~told).sum()])
        first = int(np.flatnonzero(told)[0])
        beat = int((kinds[:first] == Kind.TEMPO).sum())
        following = [at for at in np.flatnonzero(told).tolist() if (kinds[:at] == Kind.TEMPO).sum() > beat]
        # until the first change the music has the level that was told first
        stop = min([int((kinds[: following[0]] == Kind.TEMPO).sum())] if following else [40])
        notes = TOKENIZER.frame_notes(TOKENIZER.louder(ids, 0) if flat else found.ids)
        inside = notes[(notes["onset"] // FRAMES >= beat) & (notes["onset"] // FRAMES < stop)]
        token = int(found.ids[first])
        level = token - V.offset(Kind(kinds[first])) + 1
        assert 1 <= level <= 8
        if kinds[first] == Kind.DENSITY and stop - beat in (4, 8, 16):
            assert level == density_level(inside.size, stop - beat)
            seen[Kind.DENSITY] += 1
        elif kinds[first] == Kind.LOUDNESS and stop - beat in (4, 8, 16):
            assert level == loudness_level(inside["velocity"])
            seen[Kind.LOUDNESS] += 1
    assert min(seen.values()) > 5


def test_loudness_of_all_levels_is_learned() -> None:
    windows, rng = ControlWindows(TOKENIZER), np.random.default_rng(1)
    ids, _ = random_ids(TOKENIZER, 1, beats=40)
    found = [windows.sequence(ids, rng.random(DRAWN - 1), False) for _ in range(80)]
    told = np.concatenate([one.ids[V.kind_of[one.ids] == Kind.LOUDNESS] for one in found if one])
    assert np.unique(told).size >= 3


@pytest.mark.parametrize("processes", [1, 2])
def test_a_batch_is_a_function_of_seed_and_step(tokens: Path, processes: int) -> None:
    shares = {"control_share": 0.4, "fill_share": 0.3}
    whole, plain = batches(tokens, **shares), batches(tokens)
    parts = [batches(tokens, rank, processes, **shares) for rank in range(processes)]
    counted = np.zeros(3, int)
    for step in (3, 0, 5):
        batch = whole[step]
        for name in ("input_ids", "labels"):
            assert torch.equal(torch.cat([part[step][name] for part in parts]), batch[name])
        assert batch["n_targets"] == parts[-1][step]["n_targets"] == (batch["labels"] != IGNORE).sum()
        kinds = V.kind_of[batch["input_ids"].numpy()]
        rows = [np.isin(kinds, of).any(axis=1) for of in (CONTROLS, [Kind.MIDDLE])]
        untouched = ~(rows[0] | rows[1])
        counted += [int(rows[0].sum()), int(rows[1].sum()), int(untouched.sum())]
        assert torch.equal(batch["input_ids"][untouched], plain[step]["input_ids"][untouched])
        told = batch["labels"][batch["labels"] != IGNORE].numpy()
        assert not np.isin(V.kind_of[told], CONTROLS).any()
        targets = MaskedTargets(TOKENIZER.grammar)
        mask_BT = targets(batch["input_ids"], batch["labels"], batch.get("position_ids"))
        counts = batch["labels"] != IGNORE
        assert targets.masks[mask_BT[counts], batch["labels"][counts]].all()
    assert (counted > 1).all()


def test_shares_are_checked_and_those_of_0_are_no_settings(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"fill_share=0.6 and loader.control_share=0.5 found, expected at most 1"
    ):
        batches(tokens, control_share=0.5, fill_share=0.6)
    published = write_tokens(tmp_path, made(Layout(exact=False)))
    with pytest.raises(UserError, match=r"loader.control_share=0.5: tokenizer.exact=false found"):
        batches(published, control_share=0.5)
    cfg = plain_config("base")
    assert "control_share" not in language_model_settings(cfg, "base")["loader"]
    asked = {**cfg, "base": {**cfg["base"], "loader": {**cfg["base"]["loader"], "control_share": 0.2}}}
    assert language_model_settings(asked, "base")["loader"]["control_share"] == 0.2


def test_a_model_trained_with_controls_says_so(tokens: Path, tmp_path: Path) -> None:
    training = {
        "context": 128,
        "batch_tokens": 512,
        "control_share": 0.5,
        "constrained": True,
        "max_steps": 2,
    }
    ctx = context(tmp_path, "base", {"tokens": tokens}, training=training)
    assert np.isfinite(float(train_language_model(ctx)["val/loss"]))
    config = json.loads((ctx.out / "config.json").read_text())
    assert config["control_share"] == 0.5
    assert "fill_share" not in config
