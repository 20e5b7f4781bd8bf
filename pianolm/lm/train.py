"""Training of a language model: what the stages `base` and `finetune` share.

Reads the groups trainer, optimizer, loader and loss of the stage (`base.*` or `finetune.*`), and `model.*`, `seed` and
`compute.loader_workers`; upstream `tokens`, and `base` for a warm start. Publishes `model.safetensors` and
`config.json`, which `transformers.LlamaForCausalLM.from_pretrained` reads, and `tokenizer/`. The sampling settings of a
base model come along.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from transformers import LlamaForCausalLM

from pianolm.lm.checkpoint import load_weights, without_progress_bars
from pianolm.lm.datamodule import LMDataModule
from pianolm.lm.embedding import write_table
from pianolm.lm.llama import CONSTRAINED_LOSS, SHARES
from pianolm.lm.model import build_llama, count_parameters
from pianolm.lm.module import CHECKPOINT_KEY, LanguageModule
from pianolm.lm.optimizer import OptimizerSettings
from pianolm.lm.sampling_file import sampling_beside, write_sampling
from pianolm.lm.warm_start import warm_start
from pianolm.stage import Metrics, StageContext
from pianolm.tokenizer.features import token_features
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.training.hardware import resolve_hardware
from pianolm.training.sharding import is_sharded
from pianolm.training.trainer import fit


def train_language_model(ctx: StageContext) -> Metrics:
    """Trains on upstream `tokens`, from the weights of upstream `base` if there is one, and publishes.

    Returns:
        The metrics; those under `val/` are of the published weights, the best of the run.

    Raises:
        UserError: Options and artifacts do not fit each other.
    """
    options, seed = ctx.cfg[ctx.name], int(ctx.cfg["seed"])
    tokenizer = PianoTokenizer.from_pretrained(ctx.upstream["tokens"] / "tokenizer")
    data = make_data(ctx)
    data.setup("fit")
    L.seed_everything(seed, verbose=False)
    model = make_model(ctx, tokenizer)
    module = LanguageModule(
        model,
        OptimizerSettings.from_config(options["optimizer"], int(options["trainer"]["max_steps"])),
        tokenizer.vocabulary.kind_of,
        tokenizer.strikes_per_id,
        data.unigram_entropy(),
        tokenizer.grammar if options["loss"]["constrained"] else None,
        {"model": ctx.cfg["model"], **{group: options[group] for group in ("optimizer", "loader", "loss")}},
    )
    _checkpoint_and_compile(ctx, model)
    result = fit(
        ctx,
        module,
        data,
        options["trainer"],
        monitor=module.monitor,
        accumulate=data.plan.accumulate,
        keep_step=module.settings.decay_start,
    )
    if module.global_rank:
        return {}
    if is_sharded(model):
        model = _network(ctx, tokenizer, init="plain")
    return {
        **publish(ctx, model, result.best),
        "train/tokens_per_second": round(module.throughput.per_second, 1),
        "train/padding_fraction": module.padding_fraction,
        "parameters": count_parameters(model),
        "tokens_seen": module.tokens_seen,
        "resumed_from_step": result.resumed_from_step,
    }


def _checkpoint_and_compile(ctx: StageContext, model: LlamaForCausalLM) -> None:
    """Sets activation checkpointing and compilation of a network as the configuration says."""
    if ctx.cfg["hardware"]["activation_checkpointing"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if ctx.cfg["model"]["compile"]:
        # FSDP2 gathers the weights of each layer before it, which no compiled graph can hold
        sharded = resolve_hardware(ctx.cfg[ctx.name]["trainer"]).strategy == "fsdp"
        for part in model.model.layers if sharded else [model.model]:
            part.compile()  # in place, so that names of weights do not change


def make_data(ctx: StageContext) -> LMDataModule:
    """Batches of upstream `tokens`."""
    options = ctx.cfg[ctx.name]
    trainer = options["trainer"]
    return LMDataModule(
        ctx.upstream["tokens"],
        options["loader"],
        int(trainer["max_steps"]),
        seed=int(ctx.cfg["seed"]),
        processes=resolve_hardware(trainer).processes,
        workers=int(ctx.cfg["compute"]["loader_workers"]),
        accumulate=trainer["accumulate_grad_batches"],
    )


def _network(ctx: StageContext, tokenizer: PianoTokenizer, **changes: Any) -> LlamaForCausalLM:
    """The network of the configuration, with some options of `model` changed."""
    options, settings, v = ctx.cfg[ctx.name], {**ctx.cfg["model"], **changes}, tokenizer.vocabulary
    features_VF = token_features(tokenizer) if settings["embedding"] == "codebook" else None
    context = int(options["loader"]["context"])
    model = build_llama(settings, v.size, v.pad, v.bos, v.eos, context, features_VF)
    if options["loss"]["constrained"]:
        setattr(model.config, CONSTRAINED_LOSS, True)
    for name in SHARES:
        if share := float(options["loader"][name]):
            setattr(model.config, name, share)
    return model


def make_model(ctx: StageContext, tokenizer: PianoTokenizer) -> LlamaForCausalLM:
    """The network with fresh weights, or with those of upstream `base`."""
    model = _network(ctx, tokenizer)
    rank_zero_info(f"{ctx.name}: model of {count_parameters(model):,} parameters")
    if "base" in ctx.upstream:
        report = warm_start(model, ctx.upstream["base"], tokenizer, ctx.upstream["tokens"])
        rank_zero_info(f"{ctx.name}: starts from {ctx.upstream['base']}: {report}")
    return model


def publish(ctx: StageContext, model: LlamaForCausalLM, checkpoint: Path) -> dict[str, float]:
    """Writes a checkpoint's weights, the base model's sampling and the tokenizer to `ctx.out`.

    Returns:
        The checkpoint's validation metrics.
    """
    load_weights(checkpoint, model, role="checkpoint")
    write_table(model)
    with without_progress_bars():
        model.save_pretrained(ctx.out, max_shard_size="1TB")
    if "base" in ctx.upstream:
        write_sampling(ctx.out, sampling_beside(ctx.upstream["base"]))
    shutil.copytree(ctx.upstream["tokens"] / "tokenizer", ctx.out / "tokenizer")
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)[CHECKPOINT_KEY]
    metrics: dict[str, float] = saved["val_metrics"]
    return metrics
