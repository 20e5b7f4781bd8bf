"""`_target_` entries are looked up as files: what exists is found, what does not is named, and nothing is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pianolm.config.targets import missing_part


@pytest.mark.parametrize(
    "target",
    [
        "pianolm.training.progress.progress",
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.callbacks.early_stopping.EarlyStopping",
        "torch.optim.AdamW",
        "collections.OrderedDict",
        "builtins.dict",
    ],
)
def test_what_exists_is_found(target: str) -> None:
    assert missing_part(target) is None


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("no.Such", "there is no module 'no'"),
        ("Such", "'Such' is not of the form package.module.Class"),
        ("pianolm.training.progres.progress", "the module 'pianolm.training' has no 'progres'"),
        ("pianolm.training.progress.Wish", "the module 'pianolm.training.progress' has no 'Wish'"),
        ("pianolm.training.progress", "'pianolm.training.progress' is a module, not a class or function"),
        ("lightning.pytorch.callbacks.Wish", "the module 'lightning.pytorch.callbacks' has no 'Wish'"),
    ],
)
def test_what_is_missing_is_named(target: str, missing: str) -> None:
    assert missing_part(target) == missing


def test_folders_of_a_user_need_no_init_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my_folder" / "inner"
    folder.mkdir(parents=True)
    (folder / "parts.py").write_text("class Thing: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert missing_part("my_folder.inner.parts.Thing") is None
    assert missing_part("my_folder.inner.parts.Wish") == "the module 'my_folder.inner.parts' has no 'Wish'"


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from pianolm.config.targets import missing_part; "
        "missing_part('lightning.pytorch.callbacks.Wish'); sys.exit('lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
