"""Packs a trained model for `pianolm/models/`: weights in 16 bits, tokenizer, sampling, credits, what the card needs.

    PYTHONPATH=. python experiments/box-model/pack.py MODEL BEFORE ARTIFACTS OUT
    PYTHONPATH=. python experiments/box-model/pack.py OUT    after an edit of card or preset: writes sampling and hashes

MODEL is the artifact of stage finetune, BEFORE the model that it went on from: the weights are the mean of both, which
is better than either (`experiments/box-model`). ARTIFACTS is the directory in which those are found that MODEL was made
from. A card (README.md) that lies in OUT stays. The sampling settings that the model brings along
(`generation_config.json`) are those of the preset `conf/generate/songs.yaml`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from experiments.packing import free_record_of, record_of, write_packed
from pianolm import PianoLM
from pianolm.export.card import CARD
from pianolm.export.credits import credits_of
from pianolm.export.model_files import write_model
from pianolm.json_file import read_object
from pianolm.lm.llama import CONTROL_SHARE
from pianolm.lm.sampling_file import BY_KIND, REPEAT, STANDARD, write_sampling
from pianolm.run import CONFIG_DIR
from pianolm.tokenizer.vocabulary import FILL_MARKS

MOST_BYTES = 12_000_000
NOT_TOLD = (CONTROL_SHARE,)
"""Keys of config.json that are left out, since the model hardly does what it is told (`experiments/controls`): it plays
as it is asked to without, and is trained on without windows of this kind."""
PRESET = CONFIG_DIR / "generate" / "songs.yaml"
CODE_FREQUENCIES = "code_freq.npz"


def preset() -> dict[str, Any]:
    """The sampling settings that the model brings along."""
    options = OmegaConf.to_container(OmegaConf.load(PRESET))
    assert isinstance(options, dict)
    return {str(key): value for key, value in options.items() if key in (*STANDARD, REPEAT, BY_KIND)}


def mean_of(model: Path, before: Path) -> PianoLM:
    """A model with the mean weights of two of one shape; rows of the marks of gaps are those of the first."""
    lm, other = PianoLM.from_pretrained(model), PianoLM.from_pretrained(before)
    marks = [lm.tokenizer.vocabulary.offset(kind) for kind in FILL_MARKS]
    with torch.no_grad():
        table = lm.model.get_input_embeddings().weight
        rows = table[marks].clone()
        for weight, weight_before in zip(lm.model.parameters(), other.model.parameters(), strict=True):
            weight.lerp_(weight_before, 0.5)
        table[marks] = rows
    return lm


def pack(model: Path, before: Path, artifacts: Path, out: Path) -> None:
    record = free_record_of(model)
    tokens = record_of(artifacts / "tokenize" / record["upstream"]["tokens"])
    kept = {name: (out / name).read_bytes() for name in (CARD, CODE_FREQUENCIES) if (out / name).is_file()}
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_model(mean_of(model, before), model, out, "float16")  # three more bits than bfloat16
    config = out / "config.json"
    offered = {key: value for key, value in read_object(config).items() if key not in NOT_TOLD}
    config.write_text(json.dumps(offered, indent=2) + "\n", "utf-8")
    write_sampling(out, preset())
    if "velvq" in tokens["upstream"]:
        codec = artifacts / "velvq" / tokens["upstream"]["velvq"]
        kept[CODE_FREQUENCIES] = (codec / CODE_FREQUENCIES).read_bytes()
    credits_of(model, [artifacts]).write(out)
    for name, content in kept.items():
        (out / name).write_bytes(content)
    write_packed(out, record, MOST_BYTES)


def record_again(out: Path) -> None:
    record = record_of(out)
    write_sampling(out, preset())
    write_packed(out, record, MOST_BYTES)


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    record_again(*paths) if len(paths) == 1 else pack(*paths)
