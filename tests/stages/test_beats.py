"""Stage beats on a small store: what it publishes, and resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pianolm.errors import UserError
from pianolm.music.beat_network import CONFIG_FILE, WEIGHTS_FILE, BeatNetwork
from pianolm.stage import Metrics, StageContext
from pianolm.stages import beats
from tests.beat_tracking.toys import OPTIONS, make_store
from tests.setups import without_curves_drawn
from tests.tiny import composed

pytestmark = [
    pytest.mark.usefixtures("without_curves"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # lightning 2.6 on torch 2.13
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),  # batches are made in the process
]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cells") / "store"
    make_store(directory, ["train"] * 3 + ["validation"] * 2)
    return directory


def context(root: Path, cells: Path, **changes: Any) -> StageContext:
    cfg = composed("logger=csv", "hardware=cpu", "compute.threads=1", f"paths.work={root}/work")
    cfg["beats"] |= {**OPTIONS, **changes}
    cfg["trainer"]["val_check_interval"] = 2
    cfg["callbacks"]["checkpoint"]["every_n_steps"] = 2
    for name in ("out", "run"):
        (root / name).mkdir(parents=True)
    return StageContext(cfg, {"cells": cells}, root / "out", root / "work/beats/x", root / "run", "beats")


@pytest.fixture(scope="module")
def trained(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageContext, Metrics]:
    with without_curves_drawn():
        ctx = context(tmp_path_factory.mktemp("trained"), cells)
        return ctx, beats.run(ctx)


def test_it_publishes_a_tracker_and_its_figures(trained: tuple[StageContext, Metrics]) -> None:
    ctx, metrics = trained
    assert {path.name for path in ctx.out.iterdir()} == {WEIGHTS_FILE, CONFIG_FILE}
    network = BeatNetwork.from_directory(ctx.out)
    assert network.sizes.width == OPTIONS["width"]
    assert metrics["parameters"] == sum(t.size for t in network.tensors.values())
    assert {
        "val/loss",
        "val/loss_beat",
        "val/loss_downbeat",
        "val/beat_f",
        "val/downbeat_f",
    } <= metrics.keys()
    assert float(metrics["train/seconds_per_second"]) > 0
    assert metrics["resumed_from_step"] == 0


def test_a_longer_run_continues_a_finished_one(
    trained: tuple[StageContext, Metrics], cells: Path, tmp_path: Path
) -> None:
    short = trained[0]
    longer = context(tmp_path / "longer", cells, max_steps=6)
    given = replace(longer, cfg={**longer.cfg, "resume": str(short.work / "last.ckpt")})
    assert beats.run(given)["resumed_from_step"] == 4
    same = context(tmp_path / "same", cells)
    with pytest.raises(UserError, match=r"a larger beats\.max_steps"):
        beats.run(replace(same, cfg={**same.cfg, "resume": str(short.work / "last.ckpt")}))
    other = context(tmp_path / "other", cells, max_steps=6, lr=0.5)
    with pytest.raises(UserError, match=r"beats\.lr"):
        beats.run(replace(other, cfg={**other.cfg, "resume": str(short.work / "last.ckpt")}))


def test_equal_settings_give_equal_trackers(
    trained: tuple[StageContext, Metrics], cells: Path, tmp_path: Path
) -> None:
    again = context(tmp_path, cells)
    beats.run(again)
    trackers = [BeatNetwork.from_directory(ctx.out) for ctx in (trained[0], again)]
    assert trackers[0].fingerprint == trackers[1].fingerprint
    assert all(np.isfinite(tensor).all() for tensor in trackers[0].tensors.values())


def test_a_tracker_trained_in_another_precision_is_another_one() -> None:
    settings = [
        beats.STAGE.settings(composed(f"hardware.precision={name}")) for name in ("32-true", "bf16-mixed")
    ]
    assert [of["precision"] for of in settings] == ["32-true", "bf16-mixed"]
