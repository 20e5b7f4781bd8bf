"""The Trainer's arguments stand in the configuration under Lightning's names."""

from __future__ import annotations

import dataclasses
import inspect

import lightning as L

from pianolm.config.option import default_of
from pianolm.config.training import STAGE_GROUPS, TrainerConfig
from tests.tiny import composed

GROUPS = {"logger", "callbacks"}
"""Arguments that are groups of their own."""
OURS = {
    "max_steps",
    "val_check_interval",
    "gradient_clip_val",
    "log_every_n_steps",
    "accumulate_grad_batches",
    "max_epochs",
    "check_val_every_n_epoch",
    "num_sanity_val_steps",
    "enable_progress_bar",
    "enable_model_summary",
    "use_distributed_sampler",
    *("accelerator", "devices", "num_nodes", "strategy", "precision"),
}
"""Arguments whose default is not Lightning's."""


def test_every_argument_of_the_trainer_is_an_option() -> None:
    signature = inspect.signature(L.Trainer.__init__).parameters
    options = {field.name: field for field in dataclasses.fields(TrainerConfig)}
    assert set(options) == set(signature) - {"self"} - GROUPS
    for name in set(options) - OURS:
        assert default_of(options[name]) == signature[name].default, name


def test_a_stage_inherits_the_groups_and_overrides_single_keys() -> None:
    cfg = composed(
        "trainer.max_steps=7", "finetune.trainer.max_steps=3", "base.optimizer.lr=0.5", "model.lr=0.25"
    )
    assert [cfg[stage]["trainer"]["max_steps"] for stage in ("base", "finetune")] == [7, 3]
    assert [cfg[stage]["optimizer"]["lr"] for stage in ("base", "finetune")] == [0.5, 0.25]
    for stage in ("base", "finetune"):
        for group in STAGE_GROUPS:
            assert set(cfg[stage][group]) == set(cfg[group])
