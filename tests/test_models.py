"""The bundled models: whole, small, free to use, and playing."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pianolm import PianoLM, PianoTokenizer, Piece, models
from pianolm.artifacts import licences_of, problem_of
from pianolm.generation.config import GenerationConfig
from pianolm.run import execute
from tests.markdown import ROOT, links
from tests.tiny import composed
from tests.toy_lm import GOLDEN

NAMES = models.names()
FREE = {"MIT", "CC0-1.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "Public-Domain"}
MOST_BYTES = 12_000_000


def test_the_default_model_comes_along() -> None:
    assert models.DEFAULT in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_as_it_was_packed_and_small(name: str) -> None:
    directory = models.model_path(name)
    assert problem_of(directory, hashes=True) is None
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert {"config.json", "model.safetensors", "tokenizer", "code_freq.npz", "README.md", "CREDITS.csv"} <= {
        path.name for path in directory.iterdir()
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_model_learned_from_free_music_alone_and_credits_it(name: str) -> None:
    directory = models.model_path(name)
    assert set(licences_of(directory)) <= FREE
    with (directory / "CREDITS.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(row["attribution"] for row in rows)
    assert {row["source"] for row in rows} <= {"pop909", "scores"}
    card = (directory / "README.md").read_text("utf-8")
    pieces = sum(int(row["pieces"]) for row in rows)
    assert f"{pieces:,} pieces" in card
    for section in ("Data", "Measured", "Use", "Not learned from", "How it was made"):
        assert f"## {section}" in card
    for target, _ in links(card):
        assert (directory / target).exists(), target


@pytest.mark.parametrize("name", NAMES)
def test_a_model_plays_valid_music_with_dynamics(name: str) -> None:
    lm = PianoLM.from_pretrained(name)
    assert lm.model.dtype == torch.float32
    (new,) = lm.generate_pieces(beats=16, seed=1)
    assert new.piece.skipped == 0
    assert new.piece.notes.size > 8
    assert len(set(new.piece.notes["velocity"].tolist())) > 3
    assert lm.tokenizer.hashes == PianoTokenizer.from_pretrained(name).hashes


def test_pop_brings_the_sampling_of_the_preset_for_songs() -> None:
    """After an edit of the preset: `PYTHONPATH=. python experiments/box-model/pack.py pianolm/models/pop`."""
    preset = GenerationConfig.from_options(composed("generate=songs")["generate"])
    own = PianoLM.from_pretrained("pop").generation_defaults
    assert own.sampling == preset.sampling
    assert None not in own.sampling.values(), "the preset says everything, so that it plays any model alike"


@pytest.mark.parametrize("name", NAMES)
def test_transformers_loads_a_model_and_samples_with_its_settings(name: str) -> None:
    """Without the token mask, so what it generates need not be well-formed."""
    model = AutoModelForCausalLM.from_pretrained(models.model_path(name))
    own = PianoLM.from_pretrained(name).generation_defaults
    config = model.generation_config
    assert (config.do_sample, config.temperature, config.top_p) == (True, own.temperature, own.top_p)
    start = torch.full((4, 1), config.bos_token_id)
    torch.manual_seed(0)
    out = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=8)
    assert out.shape == (4, 9)
    assert len({tuple(row) for row in out.tolist()}) == 4


def test_models_come_with_the_package() -> None:
    """hatchling packs every file of the package that git does not ignore."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert not [line for line in ignored if re.search(r"models|safetensors|npz", line)]
    assert models.FOLDER == Path(models.__file__).parent == ROOT / "pianolm" / "models"


def test_playing_on_a_cpu_needs_no_torch(tmp_path: Path) -> None:
    """Its import takes longer than that of all the rest."""
    words = [
        "stage=generate",
        "hardware=cpu",
        "generate.beats=1",
        "generate.pieces=1",
        "generate.audio=false",
    ]
    words += ["generate.page=false", f"paths.outputs={tmp_path}"]
    program = (
        f"import sys; sys.argv[1:] = {words!r}; from pianolm.run import cli; cli(); "
        "print({'torch', 'transformers'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_beat_tracker_is_as_it_was_packed_small_and_learned_from_free_music() -> None:
    """After an edit of its card: `PYTHONPATH=. python experiments/beats/pack.py pianolm/models/beats`."""
    directory = models.tracker_path(models.BEATS)
    assert problem_of(directory, hashes=True) is None
    assert sum(path.stat().st_size for path in directory.iterdir()) <= 4_000_000
    assert set(licences_of(directory)) <= FREE
    card = (directory / "README.md").read_text("utf-8")
    for section in ("Data", "Not learned from", "Measured", "Use", "How it was made"):
        assert f"## {section}" in card
    with (directory / "EXCLUDED.csv").open(newline="", encoding="utf-8") as file:
        excluded = list(csv.DictReader(file))
    assert f"{len(excluded)} of the scores" in card
    with (directory / "CREDITS.csv").open(newline="", encoding="utf-8") as file:
        assert {row["source"] for row in csv.DictReader(file)} <= {"pop909", "scores"}


def test_the_dynamics_model_is_as_it_was_packed_small_and_learned_from_free_music() -> None:
    """After an edit of its card: `PYTHONPATH=. python experiments/dynamics/pack.py pianolm/models/dynamics`."""
    directory = models.model_path(models.DYNAMICS)
    assert problem_of(directory, hashes=True) is None
    assert sum(path.stat().st_size for path in directory.iterdir()) <= 6_000_000
    assert set(licences_of(directory)) <= FREE
    card = (directory / "README.md").read_text("utf-8")
    for section in ("Data", "Not learned from", "Measured", "Use", "How it was made"):
        assert f"## {section}" in card
    for target, _ in links(card):
        assert (directory / target).exists(), target
    with (directory / "CREDITS.csv").open(newline="", encoding="utf-8") as file:
        assert {row["source"] for row in csv.DictReader(file)} == {"pop909"}
    with (directory / "WORKS.csv").open(newline="", encoding="utf-8") as file:
        songs = {row["work"] for row in csv.DictReader(file)}
    assert songs <= {f"pop909/{number:03d}" for number in range(1, 801)}, "801-909 are the test split"


def test_dynamics_are_rendered_by_the_bundled_model(tmp_path: Path) -> None:
    flat = Piece.from_midi(GOLDEN / "piece.mid")
    flat.notes["velocity"] = 64
    flat.to_midi(tmp_path / "my.mid")
    words = ("stage=generate", "generate.mode=dynamics", f"prompt={tmp_path / 'my.mid'}", "generate.pieces=2")
    pages = (
        "generate.audio=false",
        "generate.page=false",
        "hardware=cpu",
        f"paths.artifacts={tmp_path / 'none'}",
    )
    metrics = execute(composed(*words, *pages), tmp_path / "run", overrides=words)
    assert not (tmp_path / "none").exists(), "nothing is trained for it"
    takes = [Piece.from_midi(tmp_path / "run" / f"piece_{number:02d}.mid") for number in range(2)]
    for take in takes:
        assert np.array_equal(take.notes["pitch"], flat.notes["pitch"])
        assert np.ptp(take.notes["velocity"].astype(int)) > 10
    first, second = (take.notes["velocity"].astype(int) for take in takes)
    assert not np.array_equal(first, second)
    assert np.corrcoef(first, second)[0, 1] > 0.1
    assert metrics["distinct_velocities"] > 10
