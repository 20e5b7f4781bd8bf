"""What a user sees who mistypes: one sentence, exit code 1, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from itertools import zip_longest
from pathlib import Path

import pytest

from pianolm import __version__
from pianolm.errors import UserError
from pianolm.run import CONFIG_DIR, checked, execute

from .tiny import composed, tiny

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
        timeout=600,  # a machine that does other work
        check=False,
    )


def choices_at_once() -> list[list[str]]:
    """Every file of `conf/` in few command lines: one of each group at once, and each experiment, which has its own."""
    of_group = defaultdict[str, list[str]](list)
    for path in GROUPS:
        group, name = path.removesuffix(".yaml").rsplit("/", 1)
        of_group[group].append(f"{group}={name}")
    experiments = of_group.pop("experiment")
    lines = [[one for one in line if one] for line in zip_longest(*of_group.values())]
    return [*lines, *([experiment] for experiment in experiments)]


@pytest.mark.parametrize("line", choices_at_once(), ids=" ".join)
def test_every_config_file_composes(line: list[str]) -> None:
    cfg = composed(*line)
    stage = next((one for one in line if one.startswith("stage=")), f"stage={cfg['stage']['name']}")
    assert stage == f"stage={cfg['stage']['name']}"


def test_every_config_file_says_what_it_is() -> None:
    for path in GROUPS:
        comments = [line for line in (CONFIG_DIR / path).read_text().splitlines() if line.startswith("# ")]
        assert comments, f"{path}: the first lines say what the file is"


def test_all_mistakes_are_told_at_once_before_anything_is_built(tmp_path: Path) -> None:
    """One sentence each, from single overrides and from options that do not fit together; never a traceback."""
    words = ["model.layers=-3", "model.heads=5", "trainer.max_stesp=5", "+foo=1", "stage=foo", "modle=tiny"]
    done = run_cli(*words, cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(words)
    assert all(line.startswith("pianolm: ") for line in lines)
    for word in words:
        assert any(word.lstrip("+").split("=")[0] in line for line in lines), word
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["data=asap", "stage=prepare"], "data.root"),
        (["-m", "model.width=32,abc", "stage=base"], "model.width=abc found, expected a whole number"),
    ],
)
def test_mistakes_end_in_one_sentence(arguments: list[str], expected: str, tmp_path: Path) -> None:
    done = run_cli(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Error executing job" not in done.stderr, "the sentence stands alone"
    assert not (tmp_path / "artifacts").exists()
    assert expected in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["data=asap", "data.root=/nonexistent/asap", "stage=prepare"], "/nonexistent/asap"),
        (["data=folder", "data.root=music", "stage=prepare"], "music: no MIDI files"),
        (["upstream.model=/nonexistent", "stage=generate"], "upstream.model=/nonexistent"),
        (["upstream.codebook=text.npz", "stage=base"], "text.npz: not a readable .npz codebook"),
        (["data=foo", "data.root=x", "stage=prepare"], "data=foo found, expected one of acpas, "),
    ],
)
def test_mistakes_raise_one_sentence_before_anything_is_built(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.npz").write_text("not a codebook")
    Path("music").mkdir()
    with pytest.raises(UserError) as error:
        execute(composed(*checked(arguments)), tmp_path / "run")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("artifacts/*/[!.]*"))


def test_a_plan_needs_no_torch_and_no_gpu(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv[1:] = ['plan=true', 'hardware=gpu', 'stage=generate', 'seed=1', 'model=tiny']; "
        "from pianolm.run import cli; cli(); "
        "assert not {'torch', 'lightning', 'matplotlib', 'wandb'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split()[:2] for line in done.stdout.splitlines()]
    assert lines[0] == ["generate:", "plays"], "what decides between the bundled model and a chain"
    assert lines[1] == ["build", "prepare"]
    assert lines[-2:] == [["build", "finetune"], ["run", "generate"]]


def test_help_and_version_answer_without_torch(tmp_path: Path) -> None:
    for flag, expected in (("--version", f"pianolm {__version__}"), ("--help", "tokenizer.ties=repeat")):
        code = f"import sys; sys.argv[1:] = ['{flag}']; from pianolm.run import cli; cli(); "
        code += "assert 'torch' not in sys.modules"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_a_users_own_directory_adds_choices(tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "model").mkdir(parents=True)
    (tmp_path / "my_conf" / "model" / "mine.yaml").write_text(
        "defaults:\n  - tiny\nwidth: 64\nheads: 2\nkv_heads: 2\n"
    )
    done = run_cli("--config-dir", "my_conf", "model=mine", "stage=base", "plan=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "build   base" in done.stdout
    there = f"hydra.searchpath=[file://{tmp_path}/my_conf]"
    with pytest.raises(UserError, match=r"model\.heads=3 found"):
        execute(composed(there, "model=mine", "model.heads=3", "stage=base"), tmp_path / "run")


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


def test_run_log_holds_what_the_terminal_showed_and_latest_is_that_run(tmp_path: Path) -> None:
    for arguments, code in (([], 0), (["data.kinds=[score]"], 1)):
        done = run_cli("stage=prepare", "data.pieces=3", *arguments, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        shown = (tmp_path / "outputs" / "latest" / "run.log").read_text()
        assert shown == done.stdout + done.stderr
        assert shown
    assert done.stderr


def test_latest_is_the_model_published_last(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of stages base and finetune, whatever the configuration would build."""
    settings = ("stage=generate", "upstream.model=latest", "generate.audio=false", "generate.page=false")
    execute(tiny(chain, *settings, "seed=7"), tmp_path / "run")
    said, *_ = capsys.readouterr().out.splitlines()
    records = [
        *chain.glob("artifacts/base/*/artifact.json"),
        *chain.glob("artifacts/finetune/*/artifact.json"),
    ]
    model = max(records, key=lambda record: record.stat().st_mtime_ns).parent
    assert said == f"upstream.model=latest: takes {model}"
    with pytest.raises(UserError, match=r"upstream\.model=latest: no artifact of stage base or finetune"):
        execute(tiny(tmp_path, *settings), tmp_path / "run")
