"""pianolm's configuration for scripts, and untrained models of its sizes."""

from __future__ import annotations

from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import LlamaForCausalLM

from pianolm import PianoTokenizer
from pianolm.config.check import open_keys
from pianolm.lm.model import build_llama
from pianolm.run import CONFIG_DIR


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved configuration as `pianolm.run` passes it to a stage."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return OmegaConf.to_container(compose("config", open_keys(overrides)), resolve=True)  # type: ignore[return-value]


def untrained_llama(size: str, tokenizer: PianoTokenizer, context: int, *changes: str) -> LlamaForCausalLM:
    """A model of `conf/model/<size>.yaml`, with some overrides, an embedding table and random weights (seed 0)."""
    torch.manual_seed(0)
    settings = composed(f"model={size}", "model.embedding=table", *changes)["model"]
    v = tokenizer.vocabulary
    return build_llama(settings, v.size, v.pad, v.bos, v.eos, context).eval()
