"""What a user sees who mistypes: one sentence, exit code 1, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pianolm.run import CONFIG_DIR

from .tiny import composed

GROUPS = sorted(
    p.relative_to(CONFIG_DIR).as_posix() for p in CONFIG_DIR.rglob("*.yaml") if p.parent != CONFIG_DIR
)


def run_cli(*arguments: str, cwd: Path, full: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pianolm.run", *arguments],
        cwd=cwd,
        env={**os.environ, "WANDB_MODE": "offline", "HYDRA_FULL_ERROR": full},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("path", GROUPS)
def test_every_config_file_composes_and_says_what_it_is(path: str) -> None:
    group, name = path.removesuffix(".yaml").rsplit("/", 1)
    override = f"+{group}={name}" if group == "experiment" else f"{group}={name}"
    cfg = composed(override.lstrip("+"))
    assert cfg["stage"]["name"]
    comments = [line for line in (CONFIG_DIR / path).read_text().splitlines() if line.startswith("# ")]
    assert comments, "the first lines say what the file is"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["stage=foo"], ["codebook", "finetune", "generate", "prepare"]),
        (["model=enormous"], ["tiny", "small", "medium", "large"]),
        (["trainer.max_step=3"], ["trainer.max_step", "max_steps"]),
        (["modle=tiny"], ["modle", "model"]),
        (["finetune.trainer.max_step=3"], ["finetune.trainer.max_step", "max_steps"]),
        (["data=asap", "stage=prepare"], ["data.root"]),
        (["data=asap", "data.root=/nonexistent/asap", "stage=prepare"], ["/nonexistent/asap"]),
        (["hardware.precision=8", "stage=base"], ["hardware.precision", "bf16-mixed"]),
        (["upstream.model=/nonexistent", "stage=generate"], ["upstream.model=/nonexistent"]),
    ],
)
def test_mistakes_end_in_one_sentence(arguments: list[str], expected: list[str], tmp_path: Path) -> None:
    done = run_cli(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Error executing job" not in done.stderr, "the sentence stands alone"
    for word in expected:
        assert word in done.stderr


def test_empty_folder_and_foreign_annotation_are_named(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    done = run_cli("data=folder", f"data.root={tmp_path}/music", "stage=prepare", cwd=tmp_path)
    assert done.returncode == 1
    assert "Error executing job" not in done.stderr, "the sentence stands alone"
    assert f"{tmp_path}/music" in done.stderr


def test_full_traceback_on_request(tmp_path: Path) -> None:
    done = run_cli("data=asap", "stage=prepare", cwd=tmp_path, full="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "UserError" in done.stderr


def test_tokenizing_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys; from pianolm import Piece, PianoTokenizer; assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
