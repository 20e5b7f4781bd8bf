"""A model as one directory that pianolm, transformers and the Hugging Face hub take: files, card, tokenizer, sample."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pianolm import models
from pianolm.artifacts import licences_of, read_record
from pianolm.export.card import Facts, write_card
from pianolm.export.credits import credits_of
from pianolm.export.model_files import write_model, write_model_record
from pianolm.generation.piano_lm import PianoLM
from pianolm.music.piece import Piece
from pianolm.report.audio import SAMPLE_RATE_HZ, mp3_bytes, render
from pianolm.report.piano_roll import save_piano_roll

SAMPLE_BEATS = 32
TOKENIZER_CODE = Path(__file__).with_name("tokenization_pianolm.py")
"""Code that is copied beside the weights, for transformers; pianolm itself runs none that lies there."""
_TOKENIZER_CONFIG = "tokenizer_config.json"
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Export:
    """What is exported, and how.

    Attributes:
        source: Directory of the model.
        roots: Directories of artifacts in which those that it was made from are looked for.
        use: `research` or `commercial`.
        name: Name of the model, which is the heading of a new card.
        path: How the card says the model is loaded.
        seed: Of the sample.
    """

    source: Path
    roots: tuple[Path, ...]
    use: str
    name: str
    path: str
    seed: int = 0


def model_name(source: Path) -> str:
    """A name for a model: that of a bundled one, else its stage and fingerprint, else that of its directory.

    It is the name of a directory, never a path: the record of a model that was fetched may say anything.
    """
    record = read_record(source) or {}
    if source.parent == models.FOLDER or "fingerprint" not in record:
        name = source.absolute().name
    else:
        name = f"{record.get('stage', 'model')}-{str(record['fingerprint'])[:8]}"
    return _NOT_IN_NAMES.sub("-", name).strip(".-") or "model"


def write_export(lm: PianoLM, export: Export, target: Path) -> None:
    """Writes the directory of an exported model; one that an earlier run left there is replaced once it is complete.

    Args:
        lm: The model, read from `export.source`.
        export: What is exported.
        target: The directory.

    Raises:
        UserError: A file of the source cannot be read.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _fill(lm, export, partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(lm: PianoLM, export: Export, out: Path) -> None:
    write_model(lm, export.source, out)
    shutil.copyfile(TOKENIZER_CODE, out / TOKENIZER_CODE.name)
    (out / _TOKENIZER_CONFIG).write_text(json.dumps(_tokenizer_config(lm), indent=2) + "\n", "utf-8")
    credits, licences = credits_of(export.source, export.roots), licences_of(export.source)
    credits.write(out)
    (sample,) = lm.generate(beats=SAMPLE_BEATS, end="never", seed=export.seed)
    _write_sample(sample, export.name, out)
    record = read_record(export.source) or {}
    facts = Facts(
        name=export.name,
        path=export.path,
        config=lm.model.config,
        parameters=sum(parameter.numel() for parameter in lm.model.parameters()),
        has_velocities=lm.tokenizer.codec is not None,
        licences=licences,
        use=export.use,
        credits=credits,
        metrics=record.get("metrics") or {},
        sample_beats=SAMPLE_BEATS,
        seed=export.seed,
    )
    write_card(facts, export.source, out)
    write_model_record(export.source, out, licences)
    for path in out.rglob("*"):  # safetensors writes files that only their owner may read
        path.chmod(0o755 if path.is_dir() else 0o644)


def _tokenizer_config(lm: PianoLM) -> dict[str, object]:
    return {
        "auto_map": {"AutoTokenizer": [f"{TOKENIZER_CODE.stem}.PianoLMTokenizer", None]},
        "tokenizer_class": "PianoLMTokenizer",
        "model_max_length": lm.model.config.max_position_embeddings,
    }


def _write_sample(sample: Piece, name: str, out: Path) -> None:
    sample.to_midi(out / "sample.mid")
    save_piano_roll(sample, out / "sample.png", f"a sample of {name}")
    (out / "sample.mp3").write_bytes(mp3_bytes(render(sample), SAMPLE_RATE_HZ))
