from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from pianolm import Piece
from pianolm.errors import UserError
from pianolm.lm.control_windows import LOUDER, PHRASES, SOFTER, ControlWindows
from pianolm.lm.datamodule import LMDataModule, TrainBatches
from pianolm.lm.loss import IGNORE
from pianolm.lm.masked_targets import MaskedTargets
from pianolm.lm.settings import language_model_settings
from pianolm.lm.train import train_language_model
from pianolm.lm.window_rewriter import DRAWN
from pianolm.music.beats import FRAMES
from pianolm.music.notes import make_notes
from pianolm.tokenizer.controls import density_level, loudness_level, without_controls
from pianolm.tokenizer.vocabulary import CONTROLS, Kind
from tests.lm.stage_toys import context, plain_config, write_tokens
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


BEATS = 48


def ramp(n_beats: int = BEATS) -> Piece:
    """More and more notes, louder and louder, every fourth of them held over beat lines."""
    rng, rows = np.random.default_rng(3), []
    for beat in range(n_beats):
        for number in range(1 + beat // 5):
            at = beat + number / (1 + beat // 5)
            lasts = 2.7 if number % 4 == 0 else 0.3
            rows.append((at, at + lasts, 40 + 3 * number + int(rng.integers(3)), 30 + 2 * beat))
    onset, end, pitch, velocity = map(np.array, zip(*rows, strict=True))
    times = np.arange(n_beats + 1) * 0.5
    return Piece.from_notes(make_notes(onset * 0.5, np.minimum(end, n_beats) * 0.5, pitch, velocity), times)


class Told(NamedTuple):
    """A control, the beat of the piece that it stands before, and the beat at which the next of its kind does."""

    kind: Kind
    level: int
    beat: int
    stop: int


def controls_of(ids: np.ndarray, first_beat: int) -> list[Told]:
    kinds = V.kind_of[ids]
    whole = first_beat + int((kinds == Kind.TEMPO).sum()) - int(ids[-1] != V.eos)
    found = []
    for kind in CONTROLS:
        at = np.flatnonzero(kinds == kind)
        beat = [first_beat + int((kinds[:place] == Kind.TEMPO).sum()) for place in at]
        levels = ids[at] - V.offset(kind) + 1
        found += [
            Told(kind, int(level), *span)
            for level, span in zip(levels, pairwise([*beat, whole]), strict=True)
        ]
    return found


def test_levels_are_those_of_the_music_in_windows_from_anywhere() -> None:
    """The truth is read from the whole piece, in which no beat lacks the notes that sound on into it."""
    piece, rng, windows = ramp(), np.random.default_rng(0), ControlWindows(TOKENIZER)
    ids = TOKENIZER.encode(piece).ids
    notes = TOKENIZER.decode(ids).frame_notes
    tempo_at = np.flatnonzero(V.kind_of[ids] == Kind.TEMPO)
    compared = dict.fromkeys(CONTROLS, 0)
    for _ in range(60):
        first_beat = int(rng.choice([0, *range(1, BEATS - 24)]))
        start = 0 if not first_beat else int(tempo_at[first_beat])
        window = ids[start : start + 400]
        drawn = rng.random(DRAWN - 1)
        drawn[1] = SOFTER / (SOFTER + LOUDER)  # as it was played
        found = windows.sequence(window, drawn, False)
        assert found is not None
        kept, is_velocity = without_controls(V, found.ids), V.kind_of[window] == Kind.VELOCITY
        same = (kept == window[: kept.size]) | is_velocity[
            : kept.size
        ]  # two codes may say the same velocities
        assert same.all()
        told_all = controls_of(found.ids, first_beat)
        ends_at = max(told.stop for told in told_all)
        for told in told_all:
            beats = PHRASES[int(drawn[4] * len(PHRASES))]
            inside = notes[
                (notes["onset"] // FRAMES >= told.beat) & (notes["onset"] // FRAMES < told.beat + beats)
            ]
            if told.stop == ends_at or told.stop - told.beat < beats:
                continue  # with the rest of a window, or cut off with its end
            compared[told.kind] += 1
            if told.kind == Kind.DENSITY:
                assert told.level == density_level(inside.size, beats)
            else:
                assert told.level == loudness_level(inside["velocity"])
    assert min(compared.values()) > 10


def test_louder_and_softer_windows_have_all_levels_and_may_contrast_with_what_comes_before() -> None:
    ids, windows = TOKENIZER.encode(ramp()).ids[:400], ControlWindows(TOKENIZER)
    drawn = np.array(
        [0.4, 0.0, 0.9, 0.5, 0.0, 0.9]
    )  # loudness alone, 35 softer, from the middle on, all of it
    levels = []
    for louder in (0.0, 1.0):
        drawn[1] = louder
        found = windows.sequence(ids, drawn, False)
        assert found is not None
        levels.append([told.level for told in controls_of(found.ids, 0)])
    assert max(levels[0]) < min(levels[1])
    first = int(np.flatnonzero(np.isin(V.kind_of[found.ids], CONTROLS))[0])
    assert not np.array_equal(found.ids[:first], ids[:first])
    drawn[5] = 0.0
    contrast = windows.sequence(ids, drawn, False)
    assert contrast is not None
    assert np.array_equal(contrast.ids[:first], ids[:first])
    assert not np.array_equal(
        without_controls(V, contrast.ids)[first:], ids[first:][: contrast.ids.size - first]
    )


def test_controls_are_given_and_the_tempo_that_asks_for_them_is_learned() -> None:
    ids, windows = TOKENIZER.encode(ramp()).ids[:400], ControlWindows(TOKENIZER)
    found = windows.sequence(ids, np.array([0.1, 0.3, 0.9, 0.3, 0.0, 0.9]), False)
    assert found is not None
    kinds = V.kind_of[found.ids]
    told = np.flatnonzero(np.isin(kinds, CONTROLS))
    assert told.size >= 2
    for at in told.tolist():
        if kinds[at - 1] in CONTROLS:
            assert found.labels[at] == IGNORE
        else:
            following = np.flatnonzero(kinds[at:] == Kind.TEMPO)
            assert found.labels[at] == found.ids[at + following[0]]
    assert np.array_equal(np.delete(found.labels, told), np.delete(found.ids, told))


def test_flat_windows_learn_density_alone_and_the_end_of_a_piece_stays() -> None:
    ids, windows, rng = TOKENIZER.encode(ramp()).ids, ControlWindows(TOKENIZER), np.random.default_rng(2)
    tempo_at = np.flatnonzero(V.kind_of[ids] == Kind.TEMPO)
    for flat in (True, False):
        for start in tempo_at[-20:-8].tolist():
            window = np.concatenate([V.tuning_id(ids), ids[start:]])
            found = windows.sequence(window, rng.random(DRAWN - 1), flat)
            assert found is not None
            kinds = V.kind_of[found.ids]
            assert found.ids[-1] == found.labels[-1] == V.eos
            assert found.ids.size <= window.size
            assert kinds[0] == Kind.TUNING
            assert not (flat and (kinds == Kind.LOUDNESS).any())
            assert np.isin(kinds, CONTROLS).any()


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


@pytest.mark.usefixtures("without_curves")
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
