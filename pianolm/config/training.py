"""Options of training: Lightning's Trainer, the optimizer, the loader and the loss.

`base.*` and `finetune.*` override any of these for their stage: `finetune.optimizer.lr=5e-4`.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any

from pianolm.config.option import modules, option


@dataclass
class TrainerConfig:
    """Arguments of `lightning.Trainer` under their own names; what differs from Lightning's default says why."""

    max_steps: int = option(600, "Number of optimizer steps of a language model.", at_least=1)
    val_check_interval: int = option(100, "Optimizer steps between validations.", at_least=1)
    gradient_clip_val: float | None = option(1.0, "Largest norm of the gradient; null: no limit.", above=0)
    log_every_n_steps: int = option(10, "Optimizer steps between rows of train/ metrics.", at_least=1)
    accumulate_grad_batches: int | None = option(
        None, "Micro-batches per optimizer step; null: computed from loader.micro_batch_tokens.", at_least=1
    )
    accelerator: str = option("${hardware.accelerator}", "Accelerator; set by hardware.")
    devices: int | str = option("${hardware.devices}", "Devices of a node; set by hardware.")
    num_nodes: int | str = option("${hardware.num_nodes}", "Nodes; set by hardware.")
    strategy: str = option("${hardware.strategy}", "Strategy; set by hardware.")
    precision: str = option("${hardware.precision}", "Precision; set by hardware.")
    max_epochs: int | None = option(
        -1, "-1: no limit, because the length of training is max_steps.", at_least=-1
    )
    min_epochs: int | None = option(None, "Fewest epochs of training.", at_least=0)
    min_steps: int | None = option(
        None, "Fewest optimizer steps of training, also with early stopping.", at_least=0
    )
    max_time: str | None = option(None, "Stops after this time, as DD:HH:MM:SS.")
    fast_dev_run: bool | int = option(False, "Runs n batches to try the code; publishes nothing.")
    overfit_batches: int | float = option(
        0.0, "Trains on this many batches, or this share of them; publishes nothing.", at_least=0
    )
    limit_train_batches: int | float | None = option(
        None, "Limits the training batches; publishes nothing.", at_least=0
    )
    limit_val_batches: int | float | None = option(
        None, "Limits the validation batches; publishes nothing.", at_least=0
    )
    limit_test_batches: int | float | None = option(
        None, "Limits the test batches; publishes nothing.", at_least=0
    )
    limit_predict_batches: int | float | None = option(
        None, "Limits the prediction batches; publishes nothing.", at_least=0
    )
    check_val_every_n_epoch: int | None = option(
        None, "null: val_check_interval counts steps across epochs.", at_least=1
    )
    num_sanity_val_steps: int | None = option(0, "Validation batches before training.", at_least=-1)
    enable_checkpointing: bool | None = option(
        None, "Lightning's default checkpoints; ours are written by `callbacks`."
    )
    enable_progress_bar: bool | None = option(
        False, "Lightning's own bar, which counts batches of an epoch; `callbacks.progress` counts steps."
    )
    enable_model_summary: bool | None = option(False, "Lightning's table of modules.")
    gradient_clip_algorithm: str | None = option(
        None, "Clips the norm or each value of the gradient; null: norm.", choices=("norm", "value")
    )
    deterministic: bool | str | None = option(None, "Uses deterministic algorithms of torch.")
    benchmark: bool | None = option(None, "torch.backends.cudnn.benchmark.")
    inference_mode: bool = option(True, "Validates under torch.inference_mode.")
    use_distributed_sampler: bool = option(False, "false: the loader divides batches among processes itself.")
    profiler: str | None = option(None, "simple, advanced or pytorch: a report of where time goes.")
    detect_anomaly: bool = option(False, "Turns on autograd's anomaly detection.")
    barebones: bool = option(False, "Lightning's bare mode, which excludes loggers and callbacks.")
    plugins: Any = option(None, "More plugins, as entries with a `_target_`.")
    sync_batchnorm: bool = option(False, "Has no effect: no model here has batch norm.")
    reload_dataloaders_every_n_epochs: int = option(0, "Epochs between new dataloaders.", at_least=0)
    default_root_dir: str | None = option(
        None, "Directory of files that Lightning writes; null: the directory of the run."
    )
    enable_autolog_hparams: bool = option(True, "Logs hyperparameters of the modules.")
    model_registry: str | None = option(None, "Lightning's model registry.")


@dataclass
class OptimizerConfig:
    """The optimizer of the language models and its learning-rate schedule."""

    name: str = option(
        "adamw", "Optimizer: a module of pianolm.lm.optimizers.", choices=modules("lm/optimizers")
    )
    lr: float = option("${model.lr}", "Peak learning rate; its default depends on the model's size.", above=0)
    adamw_lr: float | None = option(
        None,
        "With optimizer=muon: peak learning rate of embeddings and norms, in its file that of the model's size; null: "
        "optimizer.lr.",
        above=0,
    )
    betas: list[float] = option([0.9, 0.95], "Decay rates of AdamW's moments.", at_least=0, below=1)
    weight_decay: float = option(0.1, "Weight decay of matrices; embeddings and norms have none.", at_least=0)
    schedule: str = option(
        "cosine",
        "After a linear warm-up: cosine, half a cosine over all steps; wsd (warm-up, stable, decay), the peak and then "
        "a decay over the last ones, before which a longer run can continue.",
        choices=("cosine", "wsd"),
    )
    decay_fraction: float = option(
        0.2,
        "With schedule=wsd: fraction of max_steps, at the end, in which the rate decays.",
        at_least=0,
        at_most=1,
    )
    warmup_steps: int = option(
        100, "Optimizer steps until the peak learning rate, at most half of max_steps.", at_least=0
    )
    min_lr_fraction: float = option(
        0.1, "Learning rate of the last step as a fraction of the peak.", at_least=0, at_most=1
    )
    options: dict[str, Any] = option({}, "Further arguments of the optimizer: optimizer.options.eps=1e-6.")


@dataclass
class LoaderConfig:
    """Batches of the language models."""

    batch_tokens: int = option(
        4096, "Tokens of a global batch, whatever the number of processes.", at_least=1
    )
    micro_batch_tokens: int | None = option(
        None,
        "Largest micro-batch of a process in tokens; gradients are accumulated over micro-batches. null: no limit.",
        at_least=1,
    )
    context: int = option(
        512,
        "Length of a training window in tokens, which is also the longest context of the model.",
        at_least=1,
    )
    transpose: int = option(
        0, "Largest random transposition of a training window in semitones.", at_least=0, at_most=87
    )
    source_weights: dict[str, float] = option(
        {},
        "How often an epoch passes over each data source: {asap: 1, pop909: 0.5}; 1 for sources without a weight. "
        "A source of weight 0 is left out of validation, too.",
    )
    fill_share: float = option(
        0.0,
        "Share of the training windows that are reordered, beats of a gap last, so that the model learns to fill gaps "
        "(generate.mode=fill); needs tokenizer.ties=repeat or explicit.",
        at_least=0,
        at_most=1,
    )
    control_share: float = option(
        0.0,
        "Share of the training windows that say how loud and how dense they are, so that the model can be told what "
        "generate.loudness and generate.density ask for; every model can be asked.",
        at_least=0,
        at_most=1,
    )
    val_tokens: int | None = option(
        65536, "Validation targets scored in training, evenly spaced; null: all.", at_least=1
    )


@dataclass
class LossConfig:
    """The loss of the language models."""

    constrained: bool = option(
        False, "Softmax over the ids that the token mask allows at each target, as in generation."
    )


def overriding(cls: type, group: str) -> type:
    """A dataclass with the options of another, each of which defaults to the value in `group`."""
    hints = typing.get_type_hints(cls)
    fields = [
        (f.name, hints[f.name], field(default=f"${{{group}.{f.name}}}", metadata=f.metadata))
        for f in dataclasses.fields(cls)
    ]
    return dataclasses.make_dataclass(f"{cls.__name__}Override", fields)


STAGE_GROUPS = {
    "trainer": TrainerConfig,
    "optimizer": OptimizerConfig,
    "loader": LoaderConfig,
    "loss": LossConfig,
}
"""Groups that `base.*` and `finetune.*` may override."""

_OVERRIDES: list[Any] = [
    (group, cls, field(default_factory=cls))
    for group, cls in ((group, overriding(cls, group)) for group, cls in STAGE_GROUPS.items())
]
BaseConfig = dataclasses.make_dataclass("BaseConfig", _OVERRIDES)
BaseConfig.__doc__ = "Overrides for stage base: base.trainer.max_steps, base.optimizer.lr and so on."
FinetuneConfig = dataclasses.make_dataclass(
    "FinetuneConfig",
    [
        ("from_scratch", bool, option(False, "Trains from fresh weights instead of a base model.")),
        *_OVERRIDES,
    ],
)
FinetuneConfig.__doc__ = (
    "Overrides for stage finetune: finetune.trainer.max_steps, finetune.optimizer.lr and so on."
)
