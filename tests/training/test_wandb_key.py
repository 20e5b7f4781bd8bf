"""Whether W&B has a key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pianolm.training.wandb_key import has_key

KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.here:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_a_key_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert has_key()


@pytest.mark.parametrize(("host", "expected"), [("wandb.here", True), ("example.org", False), (None, False)])
def test_a_key_in_netrc_counts_for_its_server(host: str | None, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n" if host else "")
    (tmp_path / "netrc").chmod(0o600)
    assert has_key() == expected


def test_without_a_key_wandb_and_lightning_are_not_imported() -> None:
    """They are slow to import, and every stage asks."""
    program = (
        "import os, sys; os.environ.pop('WANDB_MODE', None); from pianolm.training.tracking import _in_use; "
        "print(_in_use(), {'wandb', 'lightning'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False set()"
