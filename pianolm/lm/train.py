"""What the stages `base` and `finetune` share: tokens become a language model.

Reads `base.*` or `finetune.*` (each with the complete groups trainer, optimizer, loader and loss), `model.*`, `seed`
and `compute.loader_workers`; upstream `tokens`, and `base` where the weights start from another
model's. Publishes `model.safetensors` and `config.json`, which
`transformers.LlamaForCausalLM.from_pretrained` reads, and `tokenizer/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.lm.checkpoint import load_weights, without_progress_bars
from pianolm.lm.datamodule import LMDataModule
from pianolm.lm.embedding import write_table
from pianolm.lm.model import CONSTRAINED_LOSS, build_llama, count_parameters
from pianolm.lm.module import LanguageModule
from pianolm.lm.optimizer import OptimizerSettings
from pianolm.stage import Metrics, StageContext
from pianolm.tokenizer.config import read_settings
from pianolm.tokenizer.features import token_features
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import Kind
from pianolm.training.hardware import resolve_hardware
from pianolm.training.trainer import fit

COMPARED_HASHES = ("vocabulary", "codebook", "tempo")
"""Parts of a tokenizer that must be the same for a warm start; the velocity codec may differ or be absent."""


def train_language_model(ctx: StageContext) -> Metrics:
    """Trains on upstream `tokens`, from the weights of upstream `base` where there is one, and publishes.

    Args:
        ctx: The stage's context.

    Returns:
        The metrics: those under `val/` are of the published weights, the best of the run.

    Raises:
        UserError: Settings or artifacts do not fit.
    """
    own = ctx.cfg[ctx.name]
    trainer, loader, constrained = own["trainer"], own["loader"], bool(own["loss"]["constrained"])
    tokenizer = PianoTokenizer.from_pretrained(ctx.upstream["tokens"] / "tokenizer")
    data = LMDataModule(
        ctx.upstream["tokens"],
        {**loader, "max_steps": trainer["max_steps"]},
        seed=int(ctx.cfg["seed"]),
        processes=resolve_hardware(trainer).processes,
        workers=int(ctx.cfg["compute"]["loader_workers"]),
    )
    L.seed_everything(int(ctx.cfg["seed"]), verbose=False)
    model = make_model(ctx, tokenizer, int(loader["context"]))
    if constrained:
        setattr(model.config, CONSTRAINED_LOSS, True)
    module = LanguageModule(
        model,
        OptimizerSettings.from_config({**own["optimizer"], "max_steps": trainer["max_steps"]}),
        tokenizer.vocabulary.kind_of,
        tokenizer.strikes_per_id,
        data.unigram_entropy(),
        tokenizer.grammar if constrained else None,
    )
    if ctx.cfg["model"]["compile"]:
        model.model.compile()  # in place, so that names of weights stay
    result = fit(
        ctx,
        module,
        data,
        trainer,
        monitor="val/loss",
        accumulate=data.plan.accumulate,
    )
    if module.global_rank:
        return {}
    return {
        **publish(ctx, model, result.best),
        "train/tokens_per_second": round(module.throughput.per_second, 1),
        "train/padding_fraction": module.padding_fraction,
        "parameters": count_parameters(model),
        "tokens_seen": module.tokens_seen,
        "resumed_from_step": result.resumed_from_step,
    }


def make_model(ctx: StageContext, tokenizer: PianoTokenizer, context: int) -> LlamaForCausalLM:
    """The network with fresh weights, or with those of `ctx.upstream["base"]`."""
    v = tokenizer.vocabulary
    computed = ctx.cfg["model"].get("embedding") == "codebook"
    features_VF = token_features(tokenizer) if computed else None
    model = build_llama(ctx.cfg["model"], v.size, v.pad, v.bos, v.eos, context, features_VF)
    rank_zero_info(f"{ctx.name}: model of {count_parameters(model):,} parameters")
    if "base" in ctx.upstream:
        refuse_other_tokenizer(ctx.upstream["base"], tokenizer.hashes, ctx.upstream["tokens"])
        report = load_weights(
            ctx.upstream["base"], model, unseen_V=unmet_ids(ctx.upstream["base"], tokenizer)
        )
        rank_zero_info(f"{ctx.name}: starts from {ctx.upstream['base']}: {report}")
    return model


def refuse_other_tokenizer(base: Path, hashes: Mapping[str, str], tokens: Path) -> None:
    """Compares the tokenizer beside a base model with ours; weights that lie without one are taken on trust.

    Raises:
        UserError: They differ in a part whose ids mean something else then.
    """
    directory = tokenizer_beside(base)
    if directory is None:
        rank_zero_info(
            f"upstream.base={base}: no tokenizer beside it, so what its ids mean cannot be compared"
        )
        return
    theirs = read_settings(directory)["hashes"]
    for part in COMPARED_HASHES:
        if theirs.get(part) != hashes[part]:
            raise UserError(
                f"upstream.base={base}: trained with {part} {theirs.get(part)}, the tokens of {tokens} have "
                f"{part} "
                f"{hashes[part]}; tokenize with upstream.tokenizer={directory} or train a base model on "
                f"these tokens"
            )


def unmet_ids(base: Path, tokenizer: PianoTokenizer) -> Tensor | None:
    """bool [V], ids that a base model never met: those of velocities, where the tokenizer beside it has none.

    None where it met all that we have, or where no tokenizer tells.
    """
    directory = tokenizer_beside(base)
    if directory is None or read_settings(directory)["mode"] != "base":
        return None
    return torch.from_numpy(tokenizer.vocabulary.kind_of == Kind.VELOCITY)


def tokenizer_beside(weights: Path) -> Path | None:
    """The tokenizer published with a model, given its directory or a file in it; None where there is none."""
    directory = (weights if weights.is_dir() else weights.parent) / "tokenizer"
    return directory if (directory / "tokenizer.json").is_file() else None


def publish(ctx: StageContext, model: LlamaForCausalLM, checkpoint: Path) -> dict[str, float]:
    """Writes a checkpoint's weights and the tokenizer to `ctx.out`; returns its validation metrics."""
    load_weights(checkpoint, model, role="checkpoint")
    write_table(model)
    with without_progress_bars():
        model.save_pretrained(ctx.out, max_shard_size="1TB")
    shutil.copytree(ctx.upstream["tokens"] / "tokenizer", ctx.out / "tokenizer")
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["language_model"]
    found: dict[str, float] = saved["val_metrics"]
    return found
