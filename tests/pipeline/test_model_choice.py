"""Which model is played: the bundled one, the last one trained, or that of a chain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pianolm import PianoLM, models
from pianolm.errors import UserError
from pianolm.lm.sampling_file import read_sampling, write_sampling
from pianolm.lm.weights_path import WEIGHTS
from pianolm.pipeline.graph import Planner
from pianolm.pipeline.model_choice import TRAINING, choose_models
from pianolm.run import execute
from pianolm.stages import evaluate, generate
from tests.evaluation.toys import model_directory
from tests.tiny import composed, tiny


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained model that is bundled as `pop`, with weights in 16 bits."""
    folder = tmp_path / "bundled"
    model_directory(folder / "pop", velocity=True, context=128)
    weights = folder / "pop" / WEIGHTS
    halves = {name: tensor.half() for name, tensor in load_file(weights).items()}
    save_file(halves, weights, {"format": "pt"})
    (folder / models.BEATS).symlink_to(models.tracker_path(models.BEATS))
    monkeypatch.setattr(models, "FOLDER", folder)
    return folder / "pop"


def chosen(*overrides: str) -> tuple[str | None, list[str]]:
    said: list[str] = []
    cfg = choose_models(composed(*overrides), overrides, said.append)
    return cfg["upstream"]["model"], said


def test_the_bundled_model_plays_where_nothing_asks_for_a_training_chain(bundled: Path) -> None:
    for extra in ((), ("generate.beats=8", "seed=3", "hardware=cpu", "paths.outputs=x", "logger=csv")):
        path, said = chosen("stage=generate", *extra)
        assert path == str(bundled)
        assert len(said) == 1
        assert "upstream.model=latest" in said[0]


@pytest.mark.parametrize(
    "override",
    [
        "data.pieces=9",
        "tokenizer=base",
        "tokenizer.bars=true",
        "model=small",
        "trainer.max_steps=9",
        "++base.trainer.max_steps=9",
        "experiment=demo",
        "upstream.codebook=x.npz",
    ],
)
def test_any_option_of_training_builds_its_chain(override: str, bundled: Path) -> None:
    path, said = chosen("stage=generate", override)
    assert path is None
    assert len(said) == 1
    assert override.lstrip("+").split(".")[0].split("=")[0] in said[0]
    assert "upstream.model=pop" in said[0]


def test_every_group_that_training_reads_is_known() -> None:
    """A new group must be sorted: does `stage=generate` build a chain when it is given?"""
    others = {
        "stage",
        "generate",
        "evaluate",
        "plot",
        "export",
        "artifacts",
        "callbacks",
        "logger",
        "hardware",
    }
    others |= {"compute", "paths", "prompt", "seed", "plan", "force", "verify"}
    assert set(composed()) == (others | set(TRAINING)) - {"experiment", "debug"}


def test_other_stages_and_unknown_overrides_keep_the_chain(bundled: Path) -> None:
    assert chosen("stage=evaluate") == (None, [])
    cfg = composed("stage=generate")
    assert choose_models(cfg, None, print)["upstream"]["model"] is None


def test_the_name_of_a_bundled_model_is_a_path_wherever_a_model_is_given(bundled: Path) -> None:
    assert chosen("stage=generate", "upstream.model=pop", "data.pieces=9")[0] == str(bundled)
    assert chosen("stage=evaluate", "upstream.model=pop")[0] == str(bundled)
    assert chosen("stage=generate", "upstream.model=./pop")[0] == "./pop"


def test_dynamics_are_played_by_a_dynamics_model(bundled: Path, tmp_path: Path) -> None:
    """The bundled one, that of a chain, or the last one trained; a language model where one is given."""
    dynamics = ("stage=generate", "generate.mode=dynamics", f"paths.artifacts={tmp_path}", "prompt=x.mid")
    (bundled.parent / models.DYNAMICS).mkdir()
    path, said = chosen(*dynamics)
    assert path == str(bundled.parent / models.DYNAMICS)
    assert said[0].startswith("generate: plays dynamics, the bundled model")
    assert chosen(*dynamics, "upstream.model=pop")[0] == str(bundled)
    assert chosen("stage=evaluate", "upstream.model=dynamics")[0] == str(bundled.parent / models.DYNAMICS)
    path, said = chosen(*dynamics, "data.pieces=9")
    assert path is None
    assert "upstream.model=dynamics plays the bundled one" in said[0]
    assert generate.STAGE.needs(composed(*dynamics))["model"].stage == "dynamics"
    measuring = ("stage=evaluate", "evaluate=dynamics", f"paths.artifacts={tmp_path}")
    assert evaluate.STAGE.needs(composed(*measuring))["model"].stage == "dynamics"
    for words in (dynamics, measuring):
        with pytest.raises(UserError, match=r"latest: no artifact of stage dynamics in .*stage=dynamics, or"):
            chosen(*words, "upstream.model=latest")


def test_without_a_bundled_model_the_chain_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    assert chosen("stage=generate") == (None, [])


def test_latest_without_a_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"upstream\.model=latest: no artifact of stage base or finetune"):
        chosen("stage=generate", "upstream.model=latest", f"paths.artifacts={tmp_path}")


def test_sixteen_bits_in_the_file_are_float32_in_memory(bundled: Path) -> None:
    lm = PianoLM.from_pretrained("pop")
    assert lm.model.dtype == torch.float32
    (piece,) = lm.generate(beats=2)
    assert piece.n_beats <= 2


@pytest.mark.slow  # another process that imports everything; the tests above have what it chooses
def test_generate_plays_the_bundled_model_from_the_command_line(tmp_path: Path, bundled: Path) -> None:
    """In a process of its own, since the choice depends on the command line."""
    code = (
        "import sys; from pathlib import Path; from pianolm import models; from pianolm.run import cli\n"
        f"models.FOLDER = Path({str(bundled.parent)!r})\n"
        "sys.argv = ['pianolm', 'stage=generate', 'generate.pieces=1', 'generate.beats=2', 'generate.audio=false',"
        " 'generate.page=false', 'hardware=cpu', 'compute.threads=1']\n"
        "cli()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("generate: plays pop")
    assert not (tmp_path / "artifacts").exists()
    metrics = json.loads((tmp_path / "outputs" / "latest" / "metrics.json").read_text())
    assert metrics["pieces"] == 1


def test_a_base_model_brings_its_tokenizer_and_its_sizes(bundled: Path) -> None:
    overrides = ("stage=finetune", "upstream.base=pop", "data.pieces=9")
    said: list[str] = []
    config = json.loads((bundled / "config.json").read_text())
    (bundled / "config.json").write_text(json.dumps({**config, "fill_share": 0.3}))
    cfg = choose_models(composed(*overrides), overrides, said.append)
    assert cfg["model"]["width"] == config["hidden_size"]
    shares = [cfg["finetune"]["loader"][name] for name in ("fill_share", "control_share")]
    assert shares == [0.3, 0.0], "what the base model learned is kept"
    assert cfg["finetune"]["loader"]["context"] == config["max_position_embeddings"] == 128
    assert cfg["upstream"]["tokenizer"] == str(bundled)
    assert said == [
        f"upstream.base: takes the sizes and the tokenizer of {bundled}, with loader.context=128, "
        "loader.fill_share=0.3 (loader.fill_share=0 trains without gaps), loss=plain"
    ]
    plan = Planner(cfg).plan()
    assert set(plan.upstream) == {"tokens", "base"}
    assert set(plan.upstream["tokens"].upstream) == {"cells", "tokenizer"}


def test_what_is_given_is_not_replaced_by_that_of_the_base_model(bundled: Path) -> None:
    overrides = (
        "stage=finetune",
        "upstream.base=pop",
        "model=tiny",
        "tokenizer=velocity",
        "loader.context=64",
    )
    said: list[str] = []
    cfg = choose_models(composed(*overrides), overrides, said.append)
    assert cfg["model"]["width"] == composed("model=tiny")["model"]["width"]
    assert cfg["finetune"]["loader"]["context"] == 64
    assert cfg["upstream"]["tokenizer"] is None
    assert said == []


def test_options_that_are_given_are_not_named_as_those_of_the_base_model(bundled: Path) -> None:
    overrides = ("stage=finetune", "upstream.base=pop", "loader.fill_share=0", "loss=constrained")
    config = json.loads((bundled / "config.json").read_text())
    (bundled / "config.json").write_text(json.dumps({**config, "fill_share": 0.3, "control_share": 0.2}))
    said: list[str] = []
    cfg = choose_models(composed(*overrides), overrides, said.append)
    loader = cfg["finetune"]["loader"]
    assert (loader["fill_share"], loader["control_share"], cfg["finetune"]["loss"]["constrained"]) == (
        0,
        0.2,
        True,
    )
    assert said[0].endswith(
        f"of {bundled}, with loader.context=128, loader.control_share=0.2 "
        "(loader.control_share=0 trains without controls)"
    )


def test_finetune_makes_the_bundled_model_ones_own(tmp_path: Path, bundled: Path) -> None:
    """The given weights are where training starts, and the result plays like any model."""
    sampling = {"temperature": 1.0, "repeat": 2.0, "by_kind": {"tempo": {"temperature": 0.5}}}
    write_sampling(bundled, sampling)
    cfg = tiny(tmp_path, "stage=finetune", "upstream.base=pop")
    cfg = choose_models(cfg, ["stage=finetune", "upstream.base=pop"], print)
    metrics = execute(cfg, tmp_path / "run")
    config = json.loads((Path(metrics["artifact"]) / "config.json").read_text())
    assert config["hidden_size"] == json.loads((bundled / "config.json").read_text())["hidden_size"]
    assert (Path(metrics["artifact"]) / "tokenizer" / "velocity" / "config.json").is_file()
    assert read_sampling(Path(metrics["artifact"])) == sampling
    assert PianoLM.from_pretrained(metrics["artifact"]).generation_defaults.repeat == 2.0


def test_wrong_sampling_of_a_base_model_is_refused_before_anything_is_built(
    tmp_path: Path, bundled: Path
) -> None:
    (bundled / "generation_config.json").write_text('{"pianolm": {"repeats": 2}}')
    cfg = tiny(tmp_path, "stage=finetune", f"upstream.base={bundled}")
    with pytest.raises(UserError, match=r"generation_config\.json: pianolm: unknown key 'repeats', expected"):
        execute(cfg, tmp_path / "run")
    assert not (tmp_path / "artifacts").exists()
