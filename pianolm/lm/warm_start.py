"""Warm start: a language model starts from the weights of another one with the same tokens.

Shapes: V ids.
"""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.lm.checkpoint import LoadReport, load_weights
from pianolm.tokenizer.config import read_settings
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import Kind

COMPARED_HASHES = ("vocabulary", "codebook", "tempo")
"""Parts of a tokenizer that must be equal for a warm start; the velocity codec may differ or be absent."""


def warm_start(model: LlamaForCausalLM, base: Path, tokenizer: PianoTokenizer, tokens: Path) -> LoadReport:
    """Loads the weights of a base model into a model.

    Args:
        model: Changed in place.
        base: Model directory or file of weights. Where a tokenizer lies beside it, as in an artifact, it is compared.
        tokenizer: Tokenizer of the model.
        tokens: Token store of the model, for messages.

    Raises:
        UserError: The tokenizers differ in a part that a warm start needs, or the weights do not fit the model.
    """
    directory = tokenizer_beside(base)
    if directory is None:
        rank_zero_info(
            f"upstream.base={base}: not compared with the tokens, since no tokenizer lies beside it"
        )
    else:
        _compare_tokenizers(base, directory, tokenizer, tokens)
    return load_weights(base, model, unseen_V=untrained_ids(directory, tokenizer))


def tokenizer_beside(weights: Path) -> Path | None:
    """The tokenizer published with a model, given the model's directory or a file in it; None if there is none."""
    directory = (weights if weights.is_dir() else weights.parent) / "tokenizer"
    return directory if (directory / "tokenizer.json").is_file() else None


def _compare_tokenizers(base: Path, directory: Path, tokenizer: PianoTokenizer, tokens: Path) -> None:
    base_hashes = read_settings(directory)["hashes"]
    for part in COMPARED_HASHES:
        if base_hashes.get(part) != tokenizer.hashes[part]:
            raise UserError(
                f"upstream.base={base}: trained with {part} {base_hashes.get(part)}, but the tokens of {tokens} have "
                f"{part} {tokenizer.hashes[part]}; tokenize with upstream.tokenizer={directory} or train a base model "
                "on these tokens"
            )


def untrained_ids(directory: Path | None, tokenizer: PianoTokenizer) -> Tensor | None:
    """bool [V], ids that the base model was not trained on: those of velocities, if its tokenizer has none.

    Args:
        directory: The tokenizer of the base model; None if unknown.
        tokenizer: Tokenizer with velocities.

    Returns:
        None if the base model was trained on all ids, or if its tokenizer is unknown.
    """
    if directory is None or read_settings(directory)["mode"] != "base":
        return None
    return torch.from_numpy(tokenizer.vocabulary.kind_of == Kind.VELOCITY)
