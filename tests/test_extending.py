"""The recipes of docs/extending.md, applied as they stand to a copy of the package, and run from the command line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from pianolm.tokenizer.tokenizer import PianoTokenizer

from .markdown import ROOT, blocks, commands, sections
from .tiny import TINY

RECIPES = sections((ROOT / "docs" / "extending.md").read_text("utf-8"), 2)
OF_YAML = ("A tokenizer preset", "A model size")
LONGEST = 22


class Workshop:
    """A copy of the package with all recipes in it, and a folder of MIDI files with their beats."""

    def __init__(self, root: Path, midi: Path) -> None:
        self.root, self.midi = root, midi

    def files(self) -> dict[Path, str]:
        """Text of each file of the recipes; its first line is its path."""
        texts = [b.text for recipe in RECIPES.values() for b in blocks(recipe) if b.language != "bash"]
        return {self.root / text.splitlines()[0].removeprefix("# "): text for text in texts}

    def call(self, *arguments: str) -> str:
        """Runs pianolm there and returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "pianolm.run", *arguments],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, *arguments: str) -> dict[str, object]:
        """Runs pianolm there and returns its metrics."""
        metrics: dict[str, object] = json.loads((self.root / self.call(*arguments).split()[-1]).read_text())
        return metrics

    def arguments(self, recipe: str) -> list[str]:
        """The arguments of a recipe's command, with the folder for PATH."""
        (words,) = commands(recipe)
        assert words[:3] == ["python", "-m", "pianolm.run"]
        return [word.replace("PATH", str(self.midi)) for word in words[3:]]


@pytest.fixture(scope="module")
def workshop(
    tmp_path_factory: pytest.TempPathFactory,
    midi_file: Callable[..., Path],
    beat_file: Callable[..., Path],
) -> Workshop:
    root = tmp_path_factory.mktemp("workshop")
    for folder in ("pianolm", "conf"):  # with what Python has compiled, which takes seconds
        shutil.copytree(ROOT / folder, root / folder)
    shop = Workshop(root, root / "midi")
    for path, text in shop.files().items():
        assert not path.exists(), path
        path.write_text(text)
    for number in range(4):
        midi_file(shop.midi / f"{number}.mid", seed=number)
        beat_file(shop.midi / f"{number}.txt")
    return shop


@pytest.fixture(scope="module")
def trained(workshop: Workshop) -> dict[str, object]:
    """Metrics of a tiny base model: the recipes' data source, tokenizer, model, optimizer and callback in one run."""
    settings = [s for s in TINY if not s.startswith(("data.", "model."))]
    parts = [workshop.arguments(RECIPES[name])[1] for name in (*OF_YAML, "An optimizer", "A callback")]
    return workshop.run("stage=base", "data=pairs", f"data.root={workshop.midi}", *parts, *settings)


def test_the_recipes_are_those_that_are_promised() -> None:
    assert list(RECIPES) == ["A data source", *OF_YAML, "An optimizer", "A callback", "A stage"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_one_yaml_file_and_at_most_one_other_of_few_lines(name: str) -> None:
    found = blocks(RECIPES[name])
    assert [block.language for block in found] == [*([] if name in OF_YAML else ["python"]), "yaml", "bash"]
    lines = [line for block in found[:-1] for line in block.lines[1:]]  # the first line is the file's path
    assert len(lines) <= LONGEST


@pytest.mark.slow
def test_the_data_source_takes_its_beats_from_the_text_files(
    workshop: Workshop, trained: dict[str, object]
) -> None:
    (artifact,) = (workshop.root / "artifacts" / "prepare").glob("[!.]*[!.lock]")
    metrics = json.loads((artifact / "artifact.json").read_text())["metrics"]
    assert (metrics["files"], metrics["rejected"], metrics["pieces_train"]) == (4, 0, 2)


@pytest.mark.slow
def test_the_stage_publishes_its_artifact(workshop: Workshop, trained: dict[str, object]) -> None:
    metrics = workshop.run(*workshop.arguments(RECIPES["A stage"]))
    counts = np.load(Path(str(metrics["artifact"])) / "pitches.npy")
    assert (counts > 0).sum() == metrics["distinct_pitches"] > 1


@pytest.mark.slow
def test_the_preset_and_the_size_are_those_of_the_model(
    trained: dict[str, object], workshop: Workshop
) -> None:
    settings = OmegaConf.load(Path(str(trained["artifact"])) / "config.yaml")
    assert (settings.tokenizer.bars, settings.tokenizer.ties) == (True, "repeat")
    assert (settings.model.width, settings.model.layers, settings.optimizer.lr) == (64, 2, 0.1)
    (ids,) = (workshop.root / "artifacts" / "tokenize").glob("*/tokenizer")
    assert PianoTokenizer.from_pretrained(ids).bars


@pytest.mark.slow
def test_the_optimizer_trains_with_its_options(trained: dict[str, object]) -> None:
    artifact = Path(str(trained["artifact"]))
    settings = OmegaConf.load(artifact / "config.yaml").optimizer
    assert (settings.name, settings.lr, settings.options.momentum) == ("sgd", 0.1, 0.9)
    states = torch.load(artifact / "last.ckpt", weights_only=True)["optimizer_states"]
    assert "momentum_buffer" in states[0]["state"][0]


@pytest.mark.slow
def test_the_callback_logs(trained: dict[str, object], workshop: Workshop) -> None:
    (table,) = (workshop.root / "outputs").glob("base/*/base/csv/metrics.csv")
    with table.open(newline="") as file:
        norms = [row["val/weight_norm"] for row in csv.DictReader(file) if row["val/weight_norm"]]
    assert len(norms) >= 2
    assert all(float(norm) > 0 for norm in norms)


@pytest.mark.parametrize("name", ["A data source", "An optimizer", "A callback"])
def test_the_command_of_a_recipe_makes_a_plan(name: str, workshop: Workshop) -> None:
    plan = workshop.call(*workshop.arguments(RECIPES[name]), "plan=true")
    assert all(line.split()[0] in ("build", "reuse") for line in plan.splitlines())


def test_the_code_passes_the_linter(workshop: Workshop) -> None:
    rules = [
        "--config",
        str(ROOT / "pyproject.toml"),
        "--extend-ignore",
        "I001",
    ]  # blank lines are left out here
    files = [str(path) for path in workshop.files() if path.suffix == ".py"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *rules, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
