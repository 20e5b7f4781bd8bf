from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pianolm.config.training import LoaderConfig
from pianolm.errors import UserError
from pianolm.lm.datamodule import LMDataModule, TrainBatches
from pianolm.lm.fill_windows import FillWindows
from pianolm.lm.loss import IGNORE
from pianolm.lm.masked_targets import MaskedTargets
from pianolm.lm.settings import language_model_settings
from pianolm.lm.train import train_language_model
from pianolm.lm.window_rewriter import DRAWN
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import FILL_MARKS, Kind
from tests.lm.stage_toys import context, plain_config, random_ids, write_tokens
from tests.tokenizer.test_fill import check_scored
from tests.tokenizer.toys import Layout, made
from tests.toy_tokens import settings

TOKENIZER = made(Layout(True, "explicit", bars=False, tempo="log50_tuned"))
V = TOKENIZER.vocabulary


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"), TOKENIZER)


def data(tokens: Path, processes: int = 1, share: float = 0.5, **changes: Any) -> LMDataModule:
    given = settings(context=128, batch_tokens=1024, fill_share=share, transpose=3, **changes)
    made_data = LMDataModule(tokens, given, 8, seed=3, processes=processes)
    made_data.setup("fit")
    return made_data


def batches(tokens: Path, rank: int = 0, **options: Any) -> TrainBatches:
    module = data(tokens, **options)
    assert module._order is not None
    return TrainBatches(module._reader, module._order, module.plan, rank, 100, transpose=3)


def test_windows_are_reordered_and_never_longer() -> None:
    rng, fill = np.random.default_rng(0), FillWindows(TOKENIZER.grammar)
    ids, _ = random_ids(TOKENIZER, 1, beats=40)
    tempo_at = np.flatnonzero(V.kind_of[ids] == Kind.TEMPO)
    found, empty, cut = [], np.zeros(2), []
    for _ in range(200):
        start = int(rng.choice(tempo_at[1:])) if rng.random() < 0.6 else 0
        window = ids[start : start + 150]
        if start:
            window = np.concatenate([V.tuning_id(ids), window])
        sequence = fill.fill_sequence(window, rng.random(DRAWN - 1))
        if sequence is None:
            continue
        found.append(sequence)
        kinds = V.kind_of[sequence.ids]
        gap, suffix, prefix, middle = (int(np.flatnonzero(kinds == kind)[0]) for kind in FILL_MARKS)
        assert sequence.ids.size <= window.size
        check_scored(sequence)
        grids = [kinds[part] == Kind.TEMPO for part in (slice(gap, suffix), slice(middle, None))]
        assert np.array_equal(sequence.ids[gap:suffix][grids[0]], sequence.ids[middle:][grids[1]])
        assert TOKENIZER.fill_grammar.is_complete(sequence.ids)
        empty += [middle == prefix + 1, prefix == suffix + 1]
        cut += [start == 0 and kinds[0] != Kind.BOS]
    assert len(found) > 150
    assert (empty > 0).all(), "gaps at both edges occur"
    assert cut.count(True) > 5, "prefixes lose beats"
    assert any((V.kind_of[one.ids] == Kind.PITCH)[: one.middle].any() for one in found)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_batch_with_gaps_is_a_function_of_seed_and_step(tokens: Path, processes: int) -> None:
    whole = batches(tokens)
    parts = [batches(tokens, rank, processes=processes) for rank in range(processes)]
    plain = batches(tokens, share=0.0)
    marked = 0
    for step in (3, 0, 5):
        for name in ("input_ids", "labels"):
            assert torch.equal(torch.cat([part[step][name] for part in parts]), whole[step][name])
        batch = whole[step]
        assert batch["n_targets"] == parts[-1][step]["n_targets"] == (batch["labels"] != IGNORE).sum()
        assert batch["n_tokens"] == (batch["input_ids"] != V.pad).sum()
        kinds = V.kind_of[batch["input_ids"].numpy()]
        marked += int((kinds == Kind.MIDDLE).sum())
        unmarked = ~np.isin(kinds, (Kind.GAP,)).any(axis=1)
        assert 0 < unmarked.sum() < len(unmarked)
        for name in ("input_ids", "labels"):
            assert torch.equal(batch[name][unmarked], plain[step][name][unmarked])
        assert not np.isin(V.kind_of[batch["labels"][batch["labels"] != IGNORE]], FILL_MARKS).any()
    assert marked > 4


def test_validation_has_no_gaps_and_a_share_of_0_is_no_setting(tokens: Path) -> None:
    for batch in data(tokens).val_dataloader():
        assert not np.isin(V.kind_of[batch["input_ids"].numpy()], (Kind.GAP, Kind.MIDDLE)).any()
    cfg = plain_config("base")
    assert cfg["base"]["loader"]["fill_share"] == LoaderConfig().fill_share == 0
    assert "fill_share" not in language_model_settings(cfg, "base")["loader"]
    asked = {**cfg, "base": {**cfg["base"], "loader": {**cfg["base"]["loader"], "fill_share": 0.2}}}
    assert language_model_settings(asked, "base")["loader"]["fill_share"] == 0.2


def test_the_token_masks_allow_every_target(tokens: Path) -> None:
    targets, whole = MaskedTargets(TOKENIZER.grammar), batches(tokens, share=1.0)
    for step in range(3):
        batch = whole[step]
        mask_BT = targets(batch["input_ids"], batch["labels"], batch.get("position_ids"))
        counts = batch["labels"] != IGNORE
        assert targets.masks[mask_BT[counts], batch["labels"][counts]].all()


def test_implicit_ties_are_refused(tmp_path: Path) -> None:
    implicit: PianoTokenizer = made(Layout(ties="implicit"))
    with pytest.raises(UserError, match=r"loader.fill_share=0.5: tokenizer.ties=implicit found"):
        data(write_tokens(tmp_path, implicit))


@pytest.mark.usefixtures("without_curves")
def test_a_model_trained_with_gaps_says_so(tokens: Path, tmp_path: Path) -> None:
    training = {"context": 128, "batch_tokens": 512, "fill_share": 0.5, "constrained": True, "max_steps": 3}
    ctx = context(tmp_path, "base", {"tokens": tokens}, training=training)
    metrics = train_language_model(ctx)
    assert np.isfinite(float(metrics["val/loss"]))
    assert json.loads((ctx.out / "config.json").read_text())["fill_share"] == 0.5
