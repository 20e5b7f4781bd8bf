"""Packs a trained model for `pianolm/models/`: weights in 16 bits, tokenizer, sampling, credits, what the card needs.

    python experiments/box-model/pack.py MODEL ARTIFACTS OUT
    python experiments/box-model/pack.py OUT        after the card or the preset was edited: writes sampling and hashes

MODEL is the artifact of stage finetune, ARTIFACTS the directory in which those that it was made from are found. A card
(README.md) that lies in OUT stays. The sampling settings that the model brings along (`generation_config.json`) are
those of the preset `conf/generate/songs.yaml`.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from pianolm.artifacts import read_record, write_record
from pianolm.lm.sampling_file import BY_KIND, REPEAT, STANDARD, write_sampling
from pianolm.run import CONFIG_DIR

MOST_BYTES = 12_000_000
PRESET = CONFIG_DIR / "generate" / "songs.yaml"
PARTS = ("config.json", "generation_config.json")
CREDITS, CARD = "CREDITS.csv", "README.md"
RECORDED = ("stage", "fingerprint", "upstream", "licences", "metrics", "trained")
REFUSED = ("NC", "ND", "SA", "unknown")
"""Parts of licences under which a model could not be used freely."""


def record_of(directory: Path) -> dict[str, Any]:
    record = read_record(directory)
    assert record is not None, f"{directory} is an artifact"
    return record


def halves(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights in float16, which keeps three more bits of their values than bfloat16."""
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in half.values()), "weights fit into float16"
    return half


def credits_of(cells: Path) -> list[tuple[str, str, str, int, int]]:
    """Rows (source, licence, attribution, pieces, notes) of all training and validation pieces."""
    pieces: Counter[tuple[str, str, str]] = Counter()
    notes: Counter[tuple[str, str, str]] = Counter()
    with (cells / "pieces.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] != "test":
                key = (row["source"], row["licence"], row["attribution"])
                pieces[key] += 1
                notes[key] += int(row["notes"])
    return [(*key, pieces[key], notes[key]) for key in sorted(pieces)]


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
    card = (out / CARD).read_text("utf-8") if (out / CARD).is_file() else ""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shutil.copytree(model / "tokenizer", out / "tokenizer")
    for name in PARTS:
        shutil.copyfile(model / name, out / name)
    write_sampling(out, preset())
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "dtype": "float16"}, indent=2) + "\n")
    save_file(halves(load_file(model / "model.safetensors")), out / "model.safetensors", {"format": "pt"})
    if "velvq" in tokens["upstream"]:
        shutil.copyfile(
            artifacts / "velvq" / tokens["upstream"]["velvq"] / "code_freq.npz", out / "code_freq.npz"
        )
    with (out / CREDITS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("source", "licence", "attribution", "pieces", "notes"))
        writer.writerows(credits_of(artifacts / "prepare" / tokens["upstream"]["cells"]))
    (out / CARD).write_text(card, "utf-8")
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
