"""Plans: which artifacts a run builds, reuses and only tries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pianolm.config.neutral import GROUPS
from pianolm.errors import UserError
from pianolm.pipeline.graph import Builder, Planner
from pianolm.run import execute
from tests.tiny import tiny

pytestmark = pytest.mark.usefixtures("without_curves")


def fingerprint(root: Path, *overrides: str, stage: str = "finetune") -> str:
    return Planner(tiny(root, f"stage={stage}", *overrides)).node(stage).fingerprint


@pytest.mark.parametrize(
    "neutral",
    [
        "trainer.profiler=simple",
        "trainer.log_every_n_steps=3",
        "trainer.strategy=ddp",
        "hardware.devices=2",
        "logger=wandb",
        "callbacks.progress.every_n_steps=3",
        "callbacks.checkpoint.every_n_steps=7",
        "compute.threads=2",
        "paths.outputs=elsewhere",
        "generate.beats=3",
    ],
)
def test_what_cannot_change_a_result_stays_out_of_the_fingerprint(neutral: str, tmp_path: Path) -> None:
    assert fingerprint(tmp_path, neutral) == fingerprint(tmp_path)
    assert set(GROUPS) == {"hardware", "compute", "logger", "paths"}


@pytest.mark.parametrize(
    "setting",
    [
        "trainer.gradient_clip_val=0.5",
        "trainer.max_steps=7",
        "trainer.deterministic=true",
        "optimizer.lr=0.1",
        "model.lr=0.1",
        "loader.transpose=3",
        "loss=constrained",
        "model.compile=true",
        "callbacks=early_stopping",
        "hardware.precision=bf16-mixed",
        "tokenizer=ties",
        "velvq.lr=0.1",
        "seed=3",
    ],
)
def test_everything_else_is_in_it(setting: str, tmp_path: Path) -> None:
    assert fingerprint(tmp_path, setting) != fingerprint(tmp_path)


def test_a_given_learning_rate_hides_the_default_of_the_model(tmp_path: Path) -> None:
    given = fingerprint(tmp_path, "optimizer.lr=0.1")
    assert given == fingerprint(tmp_path, "optimizer.lr=0.1", "model.lr=0.5")


def lines(cfg: dict[str, Any], run_dir: Path) -> list[list[str]]:
    node = Planner(cfg).node(cfg["stage"]["name"])
    return [line.split() for line in Builder(cfg, run_dir).describe(node)]


def test_a_run_with_limited_batches_publishes_nothing_that_another_run_reuses(
    chain: Path, tmp_path: Path
) -> None:
    """Trained artifacts that exist are taken; what is tried lies in the run directory."""
    before = sorted(p for p in (chain / "artifacts").glob("*/*") if p.is_dir())
    settings = ("stage=finetune", "debug=fast_dev_run", "optimizer.lr=0.125")
    cfg = tiny(chain, *settings)
    planned = [tuple(line[:2]) for line in lines(cfg, tmp_path)]
    assert planned[-2:] == [("try", "base"), ("try", "finetune")]
    assert {verb for verb, _ in planned[:-2]} == {"reuse"}
    metrics = execute(cfg, tmp_path)
    assert Path(str(metrics["artifact"])).is_relative_to(tmp_path / "limited" / "finetune")
    assert (Path(str(metrics["artifact"])) / "model.safetensors").is_file()
    assert sorted(p for p in (chain / "artifacts").glob("*/*") if p.is_dir()) == before
    assert json.loads((tmp_path / "metrics.json").read_text())["stage"] == "finetune"
    other = tiny(chain, "stage=finetune", "trainer.limit_val_batches=1")
    assert [verb for verb, *_ in lines(other, tmp_path / "other")][-1] == "try"
    assert ["reuse", "base"] in [line[:2] for line in lines(other, tmp_path / "other")]


@pytest.mark.parametrize("debug", ["overfit", "profiler"])
def test_the_other_debug_settings_run(debug: str, chain: Path, tmp_path: Path) -> None:
    cfg = tiny(chain, "stage=base", f"debug={debug}", "trainer.max_steps=4", "trainer.val_check_interval=4")
    metrics = execute(cfg, tmp_path)
    assert Path(str(metrics["artifact"])).is_relative_to(tmp_path / "limited" / "base")


def test_each_artifact_is_said_to_be_built_or_reused_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stage tokenize needs the cells, and so does the codebook that it needs."""
    for verb in ("built", "reuses"):
        execute(tiny(tmp_path, "stage=tokenize", "tokenizer=base", "force=true"), tmp_path / verb)
        printed = capsys.readouterr().out.splitlines()
        paths = [words[2] for words in map(str.split, printed) if words[1:2] in (["built"], ["reuses"])]
        assert len(paths) == len(set(paths)) == 3
        assert sum(f": {verb} " in line for line in printed) >= 2


def test_missing_gpus_are_said_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pianolm.training.hardware.count_gpus", lambda: 0)
    cfg = tiny(tmp_path, "stage=generate", "hardware.accelerator=gpu")
    with pytest.raises(UserError, match=r"accelerator=gpu found, but this machine shows no GPU"):
        execute(cfg, tmp_path / "run")
    assert not (tmp_path / "artifacts").exists()
    execute(tiny(tmp_path, "stage=codebook", "hardware.accelerator=gpu"), tmp_path / "run")


def test_a_batch_that_processes_cannot_share_is_said_before_anything_is_built(tmp_path: Path) -> None:
    """Of any training of the plan that is not published yet; batches of tests/tiny.py have four rows of 64."""
    for stage, changes, said in (
        ("base", ["hardware=ddp_cpu", "hardware.devices=3"], r"batch_tokens=256 makes 4 rows .* 3 processes"),
        (
            "generate",
            ["hardware=fsdp_cpu", "finetune.loader.batch_tokens=64"],
            r"64 makes 1 rows .* 2 processes",
        ),
        (
            "finetune",
            ["base.trainer.accumulate_grad_batches=3"],
            r"4 rows .* 1 processes with 3 micro-batches",
        ),
    ):
        with pytest.raises(UserError, match=said) as refused:
            execute(tiny(tmp_path, f"stage={stage}", *changes), tmp_path / "run")
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "artifacts").exists()


def test_a_plan_names_the_mode_of_tokens_and_refuses_what_cannot_be_used(tmp_path: Path) -> None:
    plan = [line for line in lines(tiny(tmp_path, "stage=finetune"), tmp_path) if line[1] == "tokenize"]
    assert [line[-1] for line in plan] == ["(tokenizer.mode=velocity)", "(tokenizer.mode=base)"]
    (tmp_path / "x.txt").write_text("no weights")
    (tmp_path / "empty").mkdir()
    for given, message in (
        ("x.txt", r"^upstream\.base=\S*x\.txt: \.txt found, expected a model directory"),
        ("empty", r"^upstream\.base=\S*empty: no such file \(\S*model\.safetensors\)"),
    ):
        with pytest.raises(UserError, match=message):
            execute(
                tiny(tmp_path, "stage=finetune", f"upstream.base={tmp_path / given}", "plan=true"), tmp_path
            )
    with pytest.raises(UserError, match=r"^callbacks\.foo\._target_=no\.Such: there is no module 'no'$"):
        execute(tiny(tmp_path, "stage=base", "+callbacks.foo._target_=no.Such", "plan=true"), tmp_path)
