"""Packs a trained model for `pianolm/models/`: weights in 16 bits, tokenizer, sampling, credits, what the card needs.

    python experiments/box-model/pack.py MODEL ARTIFACTS OUT
    python experiments/box-model/pack.py OUT        after the card or the preset was edited: writes sampling and hashes

MODEL is the artifact of stage finetune, ARTIFACTS the directory in which those that it was made from are found. A card
(README.md) that lies in OUT stays. The sampling settings that the model brings along (`generation_config.json`) are
those of the preset `conf/generate/songs.yaml`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pianolm import PianoLM
from pianolm.artifacts import read_record, write_record
from pianolm.export.card import CARD
from pianolm.export.credits import credits_of
from pianolm.export.model_files import write_model
from pianolm.lm.sampling_file import BY_KIND, REPEAT, STANDARD, write_sampling
from pianolm.run import CONFIG_DIR

MOST_BYTES = 12_000_000
PRESET = CONFIG_DIR / "generate" / "songs.yaml"
CODE_FREQUENCIES = "code_freq.npz"
RECORDED = ("stage", "fingerprint", "upstream", "licences", "metrics", "trained")
REFUSED = ("NC", "ND", "SA", "unknown")
"""Parts of licences under which a model could not be used freely."""


def record_of(directory: Path) -> dict[str, Any]:
    record = read_record(directory)
    assert record is not None, f"{directory} is an artifact"
    return record


def preset() -> dict[str, Any]:
    """The sampling settings that the model brings along."""
    options = OmegaConf.to_container(OmegaConf.load(PRESET))
    assert isinstance(options, dict)
    return {str(key): value for key, value in options.items() if key in (*STANDARD, REPEAT, BY_KIND)}


def pack(model: Path, artifacts: Path, out: Path) -> None:
    record = record_of(model)
    if refused := [name for name in record["licences"] if any(part in name.split("-") for part in REFUSED)]:
        raise SystemExit(
            f"{model}: learned from music under {', '.join(refused)}, which a model in the box may not"
        )
    tokens = record_of(artifacts / "tokenize" / record["upstream"]["tokens"])
    kept = {name: (out / name).read_bytes() for name in (CARD, CODE_FREQUENCIES) if (out / name).is_file()}
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_model(PianoLM.from_pretrained(model), model, out, "float16")  # three more bits than bfloat16
    write_sampling(out, preset())
    if "velvq" in tokens["upstream"]:
        codec = artifacts / "velvq" / tokens["upstream"]["velvq"]
        kept[CODE_FREQUENCIES] = (codec / CODE_FREQUENCIES).read_bytes()
    credits_of(model, [artifacts]).write(out)
    for name, content in kept.items():
        (out / name).write_bytes(content)
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    record["trained"] = {name: record[name] for name in ("versions", "git_commit")}
    write_record(out, {name: record[name] for name in RECORDED})
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert size <= MOST_BYTES, f"{size} bytes"
    print(f"{out}: {size:,} bytes")


def record_again(out: Path) -> None:
    record = record_of(out)
    write_sampling(out, preset())
    write_record(out, {name: record[name] for name in RECORDED})


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    record_again(*paths) if len(paths) == 1 else pack(*paths)
