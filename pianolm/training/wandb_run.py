"""Starts a run of Weights & Biases: online where a key is configured and the server answers, else offline."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread
from typing import Any

import wandb

from pianolm.training.wandb_key import has_key, server_address

_ANSWER_SEC, _INIT_SEC = 4.0, 8.0
_STEP = "trainer/global_step"
_unreachable: dict[str, str] = {}
"""Why a server is not used, by its address: later stages of this process do not wait for it again."""


def start_run(**arguments: Any) -> wandb.Run:
    """Starts a run whose metrics have Lightning's step axis.

    Without a key it is offline. With a key and without a server that accepts it, it is offline, too, and one line says
    why and how to sync it.

    Args:
        **arguments: Arguments of `wandb.init`, without `mode` and `settings`.
    """
    mode = os.environ.get("WANDB_MODE", "online")
    problem, run = "", None
    if mode == "online":
        mode = "online" if has_key() else "offline"
        if mode == "online":
            run, problem = _start_online(server_address(), arguments)
    if run is None:
        run = wandb.init(mode="offline" if problem else mode, settings=_settings(), **arguments)  # type: ignore[arg-type]  # any word of WANDB_MODE
    if problem:
        print(
            f"W&B: {problem}; this run is logged offline, and sent later with: wandb sync {Path(run.dir).parent}",
            flush=True,
        )
    run.define_metric(_STEP)
    run.define_metric("*", step_metric=_STEP, step_sync=True)
    return run


def _settings() -> wandb.Settings:
    return wandb.Settings(silent=True, console="off", init_timeout=_INIT_SEC)


def _start_online(address: str, arguments: dict[str, Any]) -> tuple[wandb.Run | None, str]:
    """The run, or None and the reason why there is none."""
    problem = _unreachable.get(address) or _no_answer(address)
    run = None
    if not problem:
        try:
            wandb.login(prompt=False)
            run = wandb.init(mode="online", settings=_settings(), **arguments)
        except wandb.errors.Error as error:
            problem = f"{address} refused the run ({str(error).splitlines()[0]})"
    if problem:
        _unreachable[address] = problem
    return run, problem


def _no_answer(address: str) -> str:
    """Why a server does not answer; empty where it does. Looking up its name may take longer than any time limit."""
    problems = [f"{address} did not answer within {_ANSWER_SEC:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(address, timeout=_ANSWER_SEC).close()
        except urllib.error.HTTPError:
            pass  # an answer
        except (OSError, ValueError, http.client.HTTPException) as error:
            problems[0] = f"{address} cannot be reached ({getattr(error, 'reason', error)})"
            return
        problems.clear()

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ANSWER_SEC + 1)
    return problems[0] if problems else ""
