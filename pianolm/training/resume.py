"""Continuing training: the checkpoint to start from, and whether a finished run may be extended by this one."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pianolm.config.neutral import MODEL, without
from pianolm.errors import UserError
from pianolm.stage import StageContext
from pianolm.training.hardware import SMALL, trainer_arguments

if TYPE_CHECKING:
    import lightning as L

LAST, BEFORE_DECAY, WANDB_ID = "last.ckpt", "before_decay.ckpt", "wandb_id.txt"
"""Files of a run's work directory that go into its artifact, so that it can be extended."""

_OPTIMIZER_STATE = ("name", "betas", "weight_decay", "options")
"""Options of the optimizer that come with its state."""


def given_checkpoint(cfg: Mapping[str, Any]) -> Path | None:
    """The checkpoint that `resume=PATH` names, None for auto and never.

    Of a directory it is the state before the decay of the learning rate, where one was kept, else the last state.

    Raises:
        UserError: There is none at that path.
    """
    resume = str(cfg["resume"])
    if resume in ("auto", "never"):
        return None
    path = Path(resume).expanduser()
    if path.is_dir():
        path = path / (BEFORE_DECAY if (path / BEFORE_DECAY).is_file() else LAST)
    if not path.is_file():
        raise UserError(
            f"resume={resume}: no checkpoint {path}; expected auto, never, the artifact directory of a trained "
            "stage or a .ckpt file"
        )
    return path


def checkpoint_to_start_from(ctx: StageContext, module: L.LightningModule, max_steps: int) -> Path | None:
    """The checkpoint with which training starts; None for a fresh start.

    Raises:
        UserError: `resume=PATH` names a checkpoint of other settings, or one that was trained as long already.
    """
    last = ctx.work / LAST
    given = given_checkpoint(ctx.cfg)
    if given is not None and not last.is_file():
        _check_extension(given, ctx, module, max_steps)
        return given
    return last if ctx.cfg["resume"] != "never" and last.is_file() else None


def checkpoint_step(path: Path | None) -> int:
    """Optimizer steps that a checkpoint was trained for, 0 for None."""
    import torch

    if path is None:
        return 0
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def _check_extension(path: Path, ctx: StageContext, module: L.LightningModule, max_steps: int) -> None:
    """Refuses a checkpoint of another stage, of other settings, or of a run that is as long already.

    Raises:
        UserError: Names what differs.
    """
    saved = _read(path)
    if saved["pianolm_stage"] != ctx.name:
        raise UserError(
            f"resume={path}: a checkpoint of stage {saved['pianolm_stage']} found, expected one of stage {ctx.name}"
        )
    _refuse_other_settings(path, comparable(ctx.name, ctx.cfg), comparable(ctx.name, saved["pianolm_config"]))
    if ctx.name != "velvq":  # a codec's network is built from its data
        shapes = {name: list(weight.shape) for name, weight in saved["state_dict"].items()}
        _refuse_other_shapes(path, shapes, module)
    if (step := int(saved["global_step"])) >= max_steps:
        raise UserError(
            f"resume={path}: trained for {step} steps already, and {max_steps} are asked for; give a larger "
            f"{ctx.name if ctx.name in SMALL else 'trainer'}.max_steps"
        )
    id_file = path.with_name(WANDB_ID)
    if (
        path.name == LAST and id_file.is_file() and not (ctx.work / WANDB_ID).is_file()
    ):  # the same W&B run continues
        shutil.copy(id_file, ctx.work / WANDB_ID)


def _read(path: Path) -> Mapping[str, Any]:
    import torch

    try:
        saved: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        missing = {"pianolm_config", "pianolm_stage", "global_step", "state_dict"} - set(saved)
    except (RuntimeError, pickle.UnpicklingError, TypeError) as error:
        raise UserError(
            f"resume={path}: not a checkpoint of pianolm ({type(error).__name__}); give the artifact directory of a "
            f"trained stage or the {LAST} in it"
        ) from error
    if missing:
        raise UserError(
            f"resume={path}: not a checkpoint of pianolm (it lacks {', '.join(sorted(missing))}); give the artifact "
            f"directory of a trained stage or the {LAST} in it"
        )
    return saved


def comparable(stage: str, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that two runs must share for one to extend the other, by their keys."""
    if stage in SMALL:
        return {f"{stage}.{key}": value for key, value in cfg[stage].items() if key != "max_steps"}
    tokenizer = {
        key: value for key, value in cfg["tokenizer"].items() if not (stage == "base" and key == "mode")
    }
    groups = {"model": without(cfg["model"], MODEL), "tokenizer": tokenizer}
    settings = {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}
    own = cfg.get(stage, {})
    kept = {f"optimizer.{key}": own.get("optimizer", {}).get(key) for key in _OPTIMIZER_STATE}
    loss = own.get("loss", {}).get("constrained")
    gradients = trainer_arguments(cfg, stage).get("gradient_clip_val")
    return {**settings, **kept, "loss.constrained": loss, "trainer.gradient_clip_val": gradients}


def _refuse_other_settings(path: Path, own: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    differ = [key for key in sorted({*own, *theirs}) if own.get(key) != theirs.get(key)]
    if differ:
        found, wanted = (", ".join(f"{key}={of.get(key)}" for key in differ) for of in (theirs, own))
        raise UserError(
            f"resume={path}: trained with {found}, but {wanted} is asked for; give the settings it was trained with"
        )


def _refuse_other_shapes(path: Path, theirs: Mapping[str, list[int]], module: L.LightningModule) -> None:
    """Refuses a checkpoint of the same settings but another network, made by another version of pianolm."""
    own = {name: list(weight.shape) for name, weight in module.state_dict().items()}
    differ = sorted(name for name in {*own, *theirs} if own.get(name) != theirs.get(name))
    if differ:
        name = differ[0]
        raise UserError(
            f"resume={path}: {name} found with shape {theirs.get(name)}, expected {own.get(name)}: made by another "
            "version of pianolm, whose runs this one cannot extend; train anew with resume=never"
        )
