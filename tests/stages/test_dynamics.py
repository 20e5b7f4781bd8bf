"""Stage dynamics on a small store: what it publishes, playing it, measuring it, and resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pianolm import Piece
from pianolm.dynamics.files import CONFIG_FILE, WEIGHTS_FILE
from pianolm.dynamics.renderer import DynamicsModel
from pianolm.errors import UserError
from pianolm.evaluation import dynamics as measure
from pianolm.stage import StageContext
from pianolm.stages import dynamics, generate
from pianolm.tokenizer.controls import LOUDNESS_CENTRES
from tests.dynamics.toys import OPTIONS, make_store, played
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


def context(root: Path, upstream: dict[str, Path], *overrides: str, **changes: Any) -> StageContext:
    cfg = composed("logger=csv", "hardware=cpu", "compute.threads=1", f"paths.work={root}/work", *overrides)
    cfg["dynamics"] |= {**OPTIONS, **changes}
    cfg["trainer"]["val_check_interval"] = 2
    cfg["callbacks"]["checkpoint"]["every_n_steps"] = 2
    for name in ("out", "run"):
        (root / name).mkdir(parents=True)
    name = cfg["stage"]["name"]
    return StageContext(cfg, upstream, root / "out", root / f"work/{name}/x", root / "run", name)


def test_it_is_published_plays_and_is_measured(cells: Path, tmp_path: Path) -> None:
    metrics = dynamics.run(context(tmp_path / "train", {"cells": cells}, "stage=dynamics"))
    out = tmp_path / "train/out"
    assert {path.name for path in out.iterdir()} == {WEIGHTS_FILE, CONFIG_FILE}
    assert {"val/loss", "val/velocity_r", "val/velocity_mae"} <= metrics.keys()
    assert float(metrics["train/notes_per_second"]) > 0
    assert metrics["parameters"] == sum(
        p.numel() for p in DynamicsModel.from_pretrained(out).network.parameters()
    )

    prompt = tmp_path / "song.mid"
    played().to_midi(prompt)
    options = ("generate.mode=dynamics", "generate.audio=false", "generate.page=false", f"prompt={prompt}")
    playing = context(tmp_path / "play", {"model": out}, "stage=generate", *options)
    assert generate.run(playing)["pieces"] >= 1
    back = Piece.from_midi(tmp_path / "play/run/piece_00.mid")
    np.testing.assert_array_equal(back.notes["pitch"], Piece.from_midi(prompt).notes["pitch"])
    assert not np.array_equal(back.notes["velocity"], Piece.from_midi(prompt).notes["velocity"])
    told = context(tmp_path / "told", {"model": out}, "stage=generate", *options, "generate.loudness=2")
    generate.run(told)
    softer = Piece.from_midi(tmp_path / "told/run/piece_00.mid").notes["velocity"]
    assert abs(float(np.median(softer)) - LOUDNESS_CENTRES[1]) <= 2

    told = ("stage=evaluate", "evaluate=dynamics", "evaluate.told_median=true", "evaluate.temperature=0")
    told += ("generate.page=false",)
    measured = measure.run(context(tmp_path / "measure", {"model": out, "cells": cells}, *told))
    assert measured["pieces"] == 2
    assert -1 <= float(measured["velocity_r"]) <= 1


def test_a_dynamics_model_writes_no_notes(cells: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / CONFIG_FILE).write_text("{}")
    with pytest.raises(UserError, match=r"a dynamics model found.*generate\.mode=dynamics prompt=FILE"):
        generate.run(context(tmp_path / "play", {"model": tmp_path / "model"}, "stage=generate"))


def test_a_longer_run_continues_a_finished_one(cells: Path, tmp_path: Path) -> None:
    short = context(tmp_path / "short", {"cells": cells}, "stage=dynamics")
    dynamics.run(short)
    longer = context(tmp_path / "longer", {"cells": cells}, "stage=dynamics", max_steps=6)
    given = replace(longer, cfg={**longer.cfg, "resume": str(short.work / "last.ckpt")})
    assert dynamics.run(given)["resumed_from_step"] == 4


def test_widths_are_multiples_of_a_head() -> None:
    assert dynamics.STAGE.check is not None
    with pytest.raises(UserError, match=r"dynamics\.width=40 found, expected a multiple of 32"):
        dynamics.STAGE.check({"dynamics": {"width": 40}})
