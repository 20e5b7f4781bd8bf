"""The network of the language model: a Llama decoder with the sizes of the `model` options.

Shapes: B rows, T inputs of a row, V ids, F features, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from pianolm.lm.embedding import CodebookEmbedding, use_features
from pianolm.lm.induction_init import initialize_induction


def build_llama(
    settings: Mapping[str, Any],
    vocab_size: int,
    pad_id: int,
    bos_id: int,
    eos_id: int,
    context: int,
    features_VF: NDArray[np.float32] | None = None,
) -> LlamaForCausalLM:
    """A Llama with fresh weights; its output layer is tied to its embedding.

    Weights of layers that add to the residual stream are divided by √(2 · layers) (Radford et al., "Language Models
    are Unsupervised Multitask Learners", 2019, section 2.3). Without that the embeddings, whose rows are small, are
    lost among the outputs of untrained layers (`experiments/codebook-embedding`).

    Args:
        settings: `width`, `layers`, `heads`, `kv_heads` (None: as many as heads), `ffn`, `rope_theta`, `dropout` (of
            attention weights; Llama has no other), `embedding` (codebook or table), `init` (induction: see
            `pianolm.lm.induction_init`; plain: random).
        vocab_size: V.
        pad_id: Id of PAD.
        bos_id: Id of BOS.
        eos_id: Id of EOS.
        context: Longest sequence in training.
        features_VF: Features of each id, for `embedding=codebook`.
    """
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=settings["width"],
        intermediate_size=settings["ffn"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"],
        num_key_value_heads=settings["kv_heads"] or settings["heads"],
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": float(settings["rope_theta"])},
        tie_word_embeddings=True,
        attention_dropout=float(settings["dropout"]),
        pad_token_id=pad_id,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            for residual in (layer.self_attn.o_proj, layer.mlp.down_proj):
                residual.weight /= math.sqrt(2 * settings["layers"])
    if settings["embedding"] == "codebook":
        assert features_VF is not None, "a codebook embedding needs features"
        use_features(model, features_VF)
    if settings["init"] == "induction":
        initialize_induction(model)
    return model


def codebook_embeddings(model: nn.Module) -> list[CodebookEmbedding]:
    """The codebook embeddings of a model: one or none."""
    return [module for module in model.modules() if isinstance(module, CodebookEmbedding)]


def count_parameters(model: nn.Module) -> int:
    """Parameters of the model as it is published: tied ones once, and a table without the projection behind it."""
    projections = sum(module.projection.weight.numel() for module in codebook_embeddings(model))
    return sum(parameter.numel() for parameter in model.parameters()) - projections


def packing(position_ids_BT: Tensor | None) -> dict[str, Tensor]:
    """Arguments of `LlamaModel` that keep attention inside the windows of packed rows; none if no row is packed.

    Args:
        position_ids_BT: Positions that start at 0 in every window, or None.
    """
    if position_ids_BT is None:
        return {}
    window_BT = (position_ids_BT == 0).cumsum(dim=1)
    length = window_BT.shape[1]
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=window_BT.device).tril()
    mask_B1TT = (window_BT[:, None, :, None] == window_BT[:, None, None, :]) & causal_TT
    return {"position_ids": position_ids_BT, "attention_mask": mask_B1TT}
