"""The files of a model in one directory, as transformers and pianolm read them, and nothing else that lay there."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pianolm.artifacts import file_fingerprint, read_record, write_record
from pianolm.errors import UserError
from pianolm.generation.piano_lm import PianoLM
from pianolm.hub import MODEL_FILES
from pianolm.lm.sampling_file import FILE as GENERATION_CONFIG
from pianolm.lm.sampling_file import write_sampling
from pianolm.lm.weight_names import HEAD
from pianolm.lm.weights_path import WEIGHTS

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Precisions in which weights are stored, by their names in safetensors files."""
CODE_FREQUENCIES = "code_freq.npz"
_RECORDED = ("stage", "fingerprint", "upstream", "licences", "metrics", "trained")


def write_model(lm: PianoLM, source: Path, out: Path, dtype: str | None = None) -> None:
    """Writes network, weights, tokenizer and sampling settings of a model.

    Network and tokenizer are written anew from what was read and checked, so that neither code nor settings that only
    lay beside the weights travel along. `config.json` asks transformers for float32, in which pianolm computes too,
    whatever the weights are stored in.

    Args:
        lm: The model.
        source: The directory it was read from.
        out: Gets the files.
        dtype: Precision in which weights are stored; None for that of the source.

    Raises:
        UserError: A weight is too large for the precision.
    """
    config = copy.deepcopy(lm.model.config)
    config.architectures, config.dtype = [type(lm.model).__name__], torch.float32
    config.save_pretrained(out)
    _write_weights(lm, out / WEIGHTS, dtype or stored_dtype(source / WEIGHTS))
    lm.tokenizer.save_pretrained(out / "tokenizer")
    _write_generation_config(lm, out)
    if (source / CODE_FREQUENCIES).is_file():
        shutil.copyfile(source / CODE_FREQUENCIES, out / CODE_FREQUENCIES)


def stored_dtype(weights: Path) -> str:
    """The precision in which a safetensors file stores its first tensor; float32 for any other than those known."""
    with safe_open(weights, "pt") as file:
        return DTYPES.get(str(file.get_slice(next(iter(file.keys()))).get_dtype()), "float32")


def _write_weights(lm: PianoLM, path: Path, dtype: str) -> None:
    tied = {HEAD} if lm.model.config.tie_word_embeddings else set()
    tensors = {
        name: tensor.detach().to("cpu", getattr(torch, dtype)).contiguous()
        for name, tensor in lm.model.state_dict().items()
        if name not in tied
    }
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"{path}: {name} has values too large for {dtype}; store it in bfloat16 or float32"
            )
    save_file(tensors, path, {"format": "pt"})


def _write_generation_config(lm: PianoLM, out: Path) -> None:
    """Ids of the marks and, where the model brings them along, its sampling settings."""
    vocabulary = lm.tokenizer.vocabulary
    marks = {
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
    }
    (out / GENERATION_CONFIG).write_text(json.dumps(marks, indent=2) + "\n", "utf-8")
    write_sampling(out, lm.generation_defaults.sampling)


def write_model_record(source: Path, out: Path, licences: list[str]) -> None:
    """Writes `artifact.json`: where the model comes from, and the hashes of the files that make it.

    Cards, samples and code are not among these, so that they may be edited.

    Args:
        source: The directory that the model was read from.
        out: The directory with its files.
        licences: Those of the music that it learned from.
    """
    record = read_record(source) or {}
    trained = record.get("trained") or {name: record.get(name) for name in ("versions", "git_commit")}
    known = {**record, "licences": licences, "trained": trained}
    known.setdefault("stage", "model")
    known.setdefault("fingerprint", file_fingerprint(out / WEIGHTS))
    write_record(out, {name: known.get(name) for name in _RECORDED if name in known}, MODEL_FILES)
