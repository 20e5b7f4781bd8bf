"""Keys of earlier configurations and what replaced them, for error messages and docs."""

from __future__ import annotations

RENAMED: dict[str, str] = {
    "trainer.val_every": "trainer.val_check_interval",
    "trainer.grad_clip": "trainer.gradient_clip_val",
    "trainer.learning_rate": "optimizer.lr",
    "trainer.min_lr_fraction": "optimizer.min_lr_fraction",
    "trainer.warmup_steps": "optimizer.warmup_steps",
    "trainer.weight_decay": "optimizer.weight_decay",
    "trainer.betas": "optimizer.betas",
    "trainer.batch_tokens": "loader.batch_tokens",
    "trainer.micro_batch_tokens": "loader.micro_batch_tokens",
    "trainer.context": "loader.context",
    "trainer.transpose": "loader.transpose",
    "trainer.source_weights": "loader.source_weights",
    "trainer.val_tokens": "loader.val_tokens",
    "trainer.grammar": "loss.constrained",
    "trainer.patience": "callbacks=early_stopping callbacks.early_stopping.patience",
    "trainer.compile": "model.compile",
    "model.learning_rate": "model.lr",
    "velvq.learning_rate": "velvq.lr",
    "velvq.slots": "velvq.max_segments",
    "tokenizer.held": "tokenizer.ties (cells: repeat, codes: implicit, ages: explicit)",
    "hardware.processes": "hardware.devices",
    "callbacks.log_every": "trainer.log_every_n_steps",
    "callbacks.lines_every": "callbacks.progress.every_n_steps",
    "callbacks.checkpoint_every": "callbacks.checkpoint.every_n_steps",
    "logger.project": "logger.wandb.project",
    "logger.group": "logger.wandb.group",
    "logger.tags": "logger.wandb.tags",
    "logger.wandb": "logger=wandb or logger=csv",
}
"""New key of each old one."""

REMOVED: dict[str, str] = {
    "model.tie_embeddings": "the output layer always shares the embedding's weights",
    "model.projection_lr": "the projection of the codebook embedding learns at optimizer.lr",
    "tokenizer.held_velocity": "tokenizer.ties=implicit and explicit leave out velocities of held cells",
    "tokenizer.pitch_order": "pitches always ascend",
    "tokenizer.tolerance": "patterns are exact, or nearest with tokenizer.exact=false",
    "velvq.weight_decay": "it was 0",
    "velvq.distance": "the absolute error is minimised, which was best",
    "velvq.weighting": "segments are weighted by their frames, which was best",
    "velvq.see_onset": "the networks of velvq=frame do not read onsets, which was better",
    "velvq.frames": "the networks of velvq=frame read all 48 frames of a beat",
    "velvq.activation": "the networks of velvq=frame have ReLU",
}
"""Why a key went."""

_OF_STAGES = ("base", "finetune")


def replacement(key: str) -> str | None:
    """A sentence on what replaced a key; None where the key never existed."""
    stage, _, rest = key.partition(".")
    if stage in _OF_STAGES and f"trainer.{rest}" in RENAMED:
        new = RENAMED[f"trainer.{rest}"]
        return f"{key} is now {new if '=' in new or new.startswith('model.') else f'{stage}.{new}'}"
    if stage in _OF_STAGES and rest == "max_steps":
        return f"{key} is now {stage}.trainer.max_steps"
    if key in RENAMED:
        return f"{key} is now {RENAMED[key]}"
    if key in REMOVED:
        return f"{key} is gone: {REMOVED[key]}"
    return None
