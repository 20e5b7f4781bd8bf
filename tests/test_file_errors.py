"""Files that cannot be written: one sentence that names the path and says what is complete."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from pianolm import artifacts
from pianolm.data.store_files import NpyWriter
from pianolm.errors import UserError
from pianolm.file_errors import file_error, unwritable_files_told
from pianolm.pipeline import graph
from pianolm.run import execute
from pianolm.training.resume import LAST
from tests.tiny import tiny

AGAIN = "and run the same command again"


def save_bytes(path: Path) -> None:
    path.write_bytes(b"x" * 100_000)


def save_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"weights": torch.zeros(100_000)}, file)


def save_numpy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(100_000))


def save_weights(path: Path) -> None:
    # not on the device itself: safetensors puts a new file in the place of the old one
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("save", [save_bytes, save_numpy, save_torch, save_weights])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # closing the file fails, too
def test_a_full_disk_is_recognised_whatever_writes(save: Callable[[Path], None], tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    sentence = rf"^{full}: could not be written \(.*\); nothing: free some space {AGAIN}$"
    with pytest.raises(UserError, match=sentence), unwritable_files_told(full, lambda: "nothing"):
        save(full)


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError) as caught,
        unwritable_files_told(tmp_path, lambda: "nothing was built"),
    ):
        (tmp_path / "file" / "folder").mkdir()
    assert str(caught.value) == (
        f"{tmp_path}/file/folder: cannot be used (Not a directory); nothing was built: allow it, or give another place "
        f"(paths.artifacts, paths.outputs), {AGAIN}"
    )


@pytest.mark.parametrize(
    "error", [KeyError("x"), OSError(errno.EPIPE, "Broken pipe"), RuntimeError(), UserError("x")]
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert file_error(error) is None


def no_space(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("stage", "where", "name"),
    [
        ("prepare", NpyWriter, "append"),
        ("tokenize", NpyWriter, "append"),
        ("base", graph, "write_record"),
        ("prepare", artifacts.FileLock, "acquire"),
    ],
)
def test_a_stage_that_cannot_write_says_what_is_complete(
    stage: str, where: object, name: str, chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {"prepare": "data.seed=99", "tokenize": "tokenizer.exact=false", "base": "optimizer.lr=0.25"}[
        stage
    ]
    cfg = tiny(chain, f"stage={stage}", "tokenizer=base", changed)
    before = sorted((chain / "artifacts").glob("*/[!.]*"))
    monkeypatch.setattr(where, name, no_space)
    with pytest.raises(UserError) as caught:
        execute(cfg, tmp_path / "run")
    message = str(caught.value)
    assert "could not be written (No space left on device); " in message
    assert message.endswith(f": free some space {AGAIN}")
    assert message.startswith(str(tmp_path if where is artifacts.FileLock else chain / "artifacts" / stage))
    if stage == "base":
        assert "its training is complete and saved" in message
        assert list((chain / "work" / "base").glob(f"*/{LAST}"))
    assert sorted((chain / "artifacts").glob("*/[!.]*")) == before


def test_generate_leaves_no_half_of_its_files(chain: Path, tmp_path: Path) -> None:
    """The command itself, with a limit on the size of files in place of a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    job = tmp_path / "job.json"
    cfg = tiny(chain, "stage=generate")
    content = {"cfg": cfg, "run_dir": str(tmp_path / "run"), "sweep": None, "overrides": None}
    job.write_text(json.dumps({**content, "parent": os.getpid()}))
    done = subprocess.run(
        [sys.executable, "-m", "pianolm.run", f"--job={job}"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"pianolm: {tmp_path / 'run'}: could not be written (File too large); nothing of this stage was saved: free "
        f"some space {AGAIN}\n"
    )
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["error.txt", "run.log"]
