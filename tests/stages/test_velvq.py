"""Stage velvq on composed cells: what it publishes, what it measures, and two processes as one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb

from pianolm.errors import UserError
from pianolm.pipeline.launch import other_processes
from pianolm.stage import StageContext
from pianolm.stages import prepare, velvq
from pianolm.tokenizer.velocity import FORMS, VelocityCodec
from tests.tiny import composed

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # lightning 2.6 on torch 2.13
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),  # batches are slices of mapped files
]

TINY: dict[str, dict[str, Any]] = {
    "segment": {"codebook_size": 64, "batch_cells": 256, "max_steps": 60, "val_every": 20},
    "frame": {
        "codebook_size": 64,
        "hidden": 32,
        "depth": 1,
        "batch_cells": 256,
        "max_steps": 60,
        "val_every": 20,
    },
}


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cell store of twelve composed pieces."""
    root = tmp_path_factory.mktemp("cells")
    out = root / "store"
    out.mkdir()
    cfg = composed("data.pieces=12", "compute.workers=1")
    prepare.run(StageContext(cfg, {}, out, root, root, "prepare"))
    return out


def context(
    root: Path, cells: Path, processes: int = 1, form: str = "segment", **changes: Any
) -> StageContext:
    cfg = composed(f"velvq={form}", "logger=csv", "compute.threads=1", f"paths.work={root}/work")
    cfg["velvq"] |= {**TINY[form], **changes}
    cfg["trainer"] |= {"accelerator": "cpu", "devices": processes}
    cfg["callbacks"]["checkpoint"]["every_n_steps"] = 20
    for name in ("out", "run"):
        (root / name).mkdir(parents=True)
    return StageContext(cfg, {"cells": cells}, root / "out", root / "work/velvq/x", root / "run", "velvq")


@pytest.mark.usefixtures("without_curves")
@pytest.mark.parametrize("form", FORMS)
def test_it_publishes_a_codec_and_how_often_its_codes_are_used(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """The next test has the pictures."""
    for draw in ("save_code_usage", "save_code_atlas", "save_worst_cells"):
        monkeypatch.setattr(f"pianolm.velvq.export.{draw}", lambda *given: None)
    metrics = velvq.run(context(tmp_path, cells, form=form))
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {"codec.safetensors", "config.json", "code_freq.npz"}
    count = np.load(out / "code_freq.npz")["count"]
    assert VelocityCodec.from_directory(out).codebook_size == count.size == 64
    parts = [
        (tmp_path / "work/velvq_cells").glob(f"*/{split}_sustain.npy") for split in ("train", "validation")
    ]
    assert count.sum() == sum(np.load(path).size for paths in parts for path in paths)
    assert {f"val/velocity_mae{suffix}" for suffix in ("", "_1", "_2")} <= metrics.keys()
    assert {"val/codes_used", "val/code_perplexity", "val/note_velocity_p95"} <= metrics.keys()
    assert float(metrics["val/velocity_mae"]) < 8  # far below the spread of played velocities
    assert float(metrics["train/cells_per_second"]) > 0
    assert metrics["resumed_from_step"] == 0


@pytest.mark.usefixtures("without_curves")
def test_its_pictures_are_published_and_reach_the_run_of_wandb(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    ctx = context(tmp_path, cells, max_steps=2, val_every=2)
    velvq.run(replace(ctx, cfg={**ctx.cfg, "logger": composed("logger=wandb")["logger"]}))
    wandb.finish()
    (logged,) = ctx.run_dir.glob("wandb/offline-run-*/files/media/images/pictures")
    for picture in ("code_usage", "code_atlas", "worst_cells"):
        (copy,) = logged.glob(f"{picture}_*.png")
        assert copy.read_bytes() == (ctx.out / f"{picture}.png").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # the checkpoint is copied on purpose
@pytest.mark.usefixtures("without_pictures")
def test_two_processes_take_the_steps_that_one_takes(cells: Path, tmp_path: Path, form: str) -> None:
    """From the same unfinished training, ten steps in one process and in two give the same codec."""
    begun = context(tmp_path / "begun", cells, form=form, max_steps=20, dead_code_threshold=0)
    velvq.run(begun)
    codecs = []
    for processes in (1, 2):
        root = tmp_path / str(processes)
        ctx = context(root, cells, processes, form, max_steps=30, val_every=10, dead_code_threshold=0)
        ctx.work.mkdir(parents=True)
        shutil.copy(begun.work / "last.ckpt", ctx.work)
        with other_processes(ctx):
            metrics = velvq.run(ctx)
        assert metrics["resumed_from_step"] == 20
        codecs.append(VelocityCodec.from_directory(ctx.out).tensors)
    start = VelocityCodec.from_directory(begun.out).tensors
    for name in start:
        one, two, begin = (t[name].astype(float) for t in (codecs[0], codecs[1], start))
        # velocities are rounded: a sum in another order may tip one of them
        tolerance = 1 if form == "segment" else 0.01 * np.abs(one - begin).max()
        assert np.abs(one - two).max() <= tolerance, name
        assert np.mean(one != two) < 0.01 or form == "frame", name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("without_pictures")
def test_a_finished_codec_can_be_trained_further(cells: Path, tmp_path: Path, form: str) -> None:
    short = context(tmp_path / "short", cells, form=form, max_steps=20)
    velvq.run(short)
    longer = context(tmp_path / "longer", cells, form=form, max_steps=30)
    given = replace(longer, cfg={**longer.cfg, "resume": str(short.work / "last.ckpt")})
    assert velvq.run(given)["resumed_from_step"] == 20
    other = context(tmp_path / "other", cells, form=form, max_steps=30, decay=0.5)
    with pytest.raises(UserError, match="give the settings it was trained with"):
        velvq.run(replace(other, cfg={**other.cfg, "resume": str(short.work / "last.ckpt")}))
