"""Warm start: a language model starts from the weights of another one with the same tokens.

Shapes: V ids.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.json_file import read_object
from pianolm.lm.checkpoint import LoadReport, load_weights
from pianolm.lm.llama import CONTROL_SHARE, FILL_SHARE
from pianolm.tokenizer.config import read_settings
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import CONTROLS, FILL_MARKS, Kind

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
    return load_weights(base, model, unseen_V=untrained_ids(directory, tokenizer, model.config))


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


def untrained_ids(
    directory: Path | None, tokenizer: PianoTokenizer, config: object | None = None
) -> Tensor | None:
    """bool [V], ids that the base model was not trained on, and the model is to learn: their rows begin afresh.

    They are those of velocities, if its tokenizer has none, and marks and controls that it did not learn.

    Args:
        directory: The tokenizer of the base model; None if unknown.
        tokenizer: Of the model.
        config: Of the model, with the shares of `pianolm.lm.llama.SHARES` that it is trained with.

    Returns:
        None if there are no such ids, or if the base model's tokenizer is unknown.
    """
    if directory is None:
        return None
    kinds = {Kind.VELOCITY} if read_settings(directory)["mode"] == "base" else set()
    path = directory.parent / "config.json"
    learned = read_object(path) if path.is_file() else {}
    for share, of_share in ((FILL_SHARE, FILL_MARKS), (CONTROL_SHARE, CONTROLS)):
        if getattr(config, share, 0) and not learned.get(share):
            kinds |= set(of_share)
    return torch.from_numpy(np.isin(tokenizer.vocabulary.kind_of, list(kinds))) if kinds else None
