"""W&B without a network: the run goes on offline and says how to sync it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from pianolm.training import wandb_run
from pianolm.training.wandb_run import start_run


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No key, no run, and a server at a port of this machine where nothing listens."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(wandb_run, "_unreachable", {})
    wandb.finish()  # a run that another test left open would be taken
    yield
    wandb.finish()


def test_a_key_without_network_is_one_line_and_the_run_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    run = start_run(project="test", dir=tmp_path, id="abcd1234", resume="allow")
    run.log({"train/loss": 1.0, "trainer/global_step": 1})
    wandb.finish()
    told, errors = capfd.readouterr()
    (line,) = told.splitlines()
    found = re.fullmatch(
        r"W&B: http://127\.0\.0\.1:9 cannot be reached \(.*Connection refused\); this run is logged offline, and "
        r"sent later with: wandb sync (.*)",
        line,
    )
    assert found is not None, line
    assert list(Path(found[1]).glob("run-abcd1234.wandb"))
    assert errors == "", "nothing about the setting `anonymous`"


def test_a_key_in_netrc_counts_and_a_server_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1\n  login user\n  password {'0123456789' * 4}\n")
    (tmp_path / "netrc").chmod(0o600)
    start_run(project="test", dir=tmp_path)
    wandb.finish()
    monkeypatch.setattr(wandb_run, "_no_answer", None)
    capfd.readouterr()
    start_run(project="test", dir=tmp_path)
    assert "cannot be reached" in capfd.readouterr().out


def test_without_a_key_no_server_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_run, "_no_answer", None)
    assert start_run(project="test", dir=tmp_path).offline
    assert capfd.readouterr().out == ""


def test_a_server_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_run, "_ANSWER_SEC", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert wandb_run._no_answer(f"http://127.0.0.1:{silent.getsockname()[1]}")
