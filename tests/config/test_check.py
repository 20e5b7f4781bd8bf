"""Every problem of a command line is one sentence that names the key and what fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from pianolm.config.check import (
    choices,
    config_problems,
    experiment_choices,
    open_keys,
    override_problems,
    parse,
)
from pianolm.run import CONFIG_DIR
from tests.tiny import composed

GROUPS = choices([CONFIG_DIR])


def problems_of(*words: str) -> list[str]:
    overrides, broken = parse(words)
    return [*broken, *override_problems(overrides, GROUPS).values()]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("model.layers=-3", "model.layers=-3 found, expected a whole number of at least 1"),
        ("trainer.max_steps=abc", "trainer.max_steps=abc found, expected a whole number of at least 1"),
        ("trainer.max_steps=20.5", "trainer.max_steps=20.5 found, expected a whole number of at least 1"),
        ("trainer.max_steps=-5", "trainer.max_steps=-5 found, expected a whole number of at least 1"),
        ("trainer.max_stesp=5", "no option 'trainer.max_stesp'; did you mean max_steps?"),
        ("generate.top_p=2", "generate.top_p=2 found, expected a number above 0 and at most 1"),
        ("tokenizer.ties=repaet", "tokenizer.ties=repaet found, expected one of repeat, implicit, explicit"),
        ("finetune.optimizer.lr=abc", "finetune.optimizer.lr=abc found, expected a number above 0"),
        ("generate.pieces=two", "generate.pieces=two found, expected a whole number of at least 1"),
        ("loss.constrained=maybe", "loss.constrained=maybe found, expected true or false"),
        (
            "data.kinds=[performances]",
            "data.kinds=['performances'] found, expected a list of performance, score",
        ),
        ("optimizer.schedule=wds", "optimizer.schedule=wds found, expected one of cosine, wsd"),
        (
            "optimizer.decay_fraction=2",
            "decay_fraction=2 found, expected a number of at least 0 and at most 1",
        ),
        ("optimizer.betas=[0.9,2]", "each a number of at least 0 and below 1"),
        ("data.limit=0", "data.limit=0 found, expected a whole number of at least 1 or null"),
        ("model.width=null", "model.width=null found, expected a whole number of at least 1"),
        ("velvq.codebook_size=128,0", "velvq.codebook_size=0 found"),
        ("velvq.hidden=3", "no option 'velvq.hidden' with velvq=segment; it belongs to velvq=frame: add"),
        ("data.root=/music", "no option 'data.root' with data=demo; it belongs to data=asap, "),
        (
            "tokenizer.vocabulary.l1=0",
            "tokenizer.vocabulary.l1=0 found, expected a whole number of at least 1",
        ),
        ("model=enormous", "model=enormous found, expected one of large, medium, small, tiny"),
        ("stage=foo", "stage=foo found, expected one of artifacts, base, beats, codebook"),
        ("generate.prompt=a.mid", "did you mean prompt=…, which belongs to no group?"),
        ("modle=tiny", "did you mean model?"),
        ("model.width.more=3", "no option 'model.width.more'"),
        ("trainer=5", "trainer=5 found, expected one of default"),
        ("tokenizer.vocabulary=5", "tokenizer.vocabulary=5 found, expected options"),
        ("finetune.learning_rate=1e-4", "finetune.learning_rate is now finetune.optimizer.lr"),
        ("base.max_steps=3", "base.max_steps is now base.trainer.max_steps"),
        ("trainer.grammar=true", "trainer.grammar is now loss.constrained"),
        (
            "callbacks.checkpoint_every=3",
            "callbacks.checkpoint_every is now callbacks.checkpoint.every_n_steps",
        ),
        ("model.tie_embeddings=true", "model.tie_embeddings is gone"),
        ("my song.mid", "expected key=value"),
    ],
)
def test_a_wrong_override_is_one_sentence(word: str, sentence: str) -> None:
    (found,) = problems_of(word)
    assert sentence in found
    assert "\n" not in found


def test_muon_does_not_go_with_divided_matrices() -> None:
    (found,) = config_problems(composed("optimizer=muon", "hardware.strategy=deepspeed"))
    assert (
        "hardware.strategy=deepspeed with optimizer=muon found, expected auto, ddp, fsdp or optimizer=adamw"
        in found
    )
    assert config_problems(composed("optimizer=muon", "hardware=fsdp")) == []
    (found,) = config_problems(composed("hardware=fsdp", "hardware.precision=16-mixed"))
    assert "hardware.precision=16-mixed with hardware.strategy=fsdp found, expected bf16-mixed" in found


def test_a_word_that_adds_an_unknown_key_is_refused() -> None:
    (found,) = problems_of("+foo=1")
    assert found.startswith("no option 'foo': there are ")


@pytest.mark.parametrize(
    "word",
    [
        "model=small",
        "stage=base",
        "experiment=demo",
        "velvq.codebook_size=128,512",
        "optimizer.lr=1e-3,2e-3",
        "optimizer.lr=interval(1e-4,1e-2)",
        "finetune.trainer.max_steps=7",
        "trainer.profiler=simple",
        "trainer.limit_val_batches=2",
        "trainer.limit_val_batches=0.5",
        "trainer.fast_dev_run=true",
        "generate.by_kind.pitch.temperature=0.8",
        "loader.source_weights={asap: 1, pop909: 0.5}",
        "logger.wandb.project=mine",
        "+callbacks.mine._target_=package.Class",
        "data.limit=null",
        "hardware.devices=auto",
        "hydra.run.dir=somewhere",
        "hydra/launcher=joblib",
        "prompt=[a.mid,b.mid]",
        "~callbacks.progress",
    ],
)
def test_what_fits_is_let_through(word: str) -> None:
    assert problems_of(word) == []


def test_options_of_a_variant_are_those_of_the_choice() -> None:
    assert problems_of("velvq=frame", "velvq.hidden=64") == []
    assert problems_of("data=asap", "data.pieces=3")
    assert problems_of("data=pop909", "data.root=somewhere") == []


def test_options_of_a_variant_may_be_those_of_the_experiment() -> None:
    def problems(*words: str) -> list[str]:
        overrides, _ = parse(words)
        return [*override_problems(overrides, GROUPS, experiment_choices(overrides, [CONFIG_DIR])).values()]

    assert problems("experiment=box", "data.parts.scores=somewhere") == []
    assert problems("experiment=box", "data.pieces=3")[0].startswith(
        "no option 'data.pieces' with data=mix; "
    )
    assert problems("experiment=box", "data=demo", "data.pieces=3") == []
    assert problems("experiment=ties", "data.parts.scores=somewhere")
    assert experiment_choices(parse(["experiment=box"])[0], [CONFIG_DIR])["data"] == "mix"


def test_the_recipe_of_the_bundled_model_learns_velocities_from_performances_alone() -> None:
    cfg = composed("experiment=box", "data.parts.scores=somewhere")
    assert cfg["finetune"]["loader"]["source_weights"] == {"scores": 0}
    assert cfg["base"]["loader"]["source_weights"]["scores"] > 0
    assert (cfg["data"]["source"], cfg["tokenizer"]["ties"]) == ("mix", "explicit")


def test_keys_of_open_mappings_need_no_plus() -> None:
    words = ["generate.by_kind.pitch.top_p=0.9", "loader.source_weights.asap=2", "model.width=64", "+a=b"]
    assert open_keys(words) == [f"++{words[0]}", f"++{words[1]}", *words[2:]]
    cfg = composed(*words[:3])
    assert cfg["generate"]["by_kind"] == {"pitch": {"top_p": 0.9}}
    assert cfg["finetune"]["loader"]["source_weights"] == {"asap": 2}


def test_an_open_mapping_may_be_given_as_a_whole() -> None:
    words = ["loader.source_weights={asap: 1, pop909: 0.5}", "optimizer.options={eps: 1e-6}"]
    assert open_keys(words) == [f"++{word}" for word in words]
    assert open_keys(["callbacks=early_stopping"]) == ["callbacks=early_stopping"]
    cfg = composed(*words)
    assert cfg["base"]["loader"]["source_weights"] == {"asap": 1, "pop909": 0.5}
    assert cfg["base"]["optimizer"]["options"] == {"eps": 1e-6}


@pytest.mark.parametrize(
    "word", ["hydra.launcher.options={resources:{big:1}}", "hydra.launcher.options.resources.big=1"]
)
def test_options_of_ray_are_an_open_mapping(word: str) -> None:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("config", ["hydra/launcher=ray", *open_keys([word])], return_hydra_config=True)
    assert cfg.hydra.launcher.options == {"resources": {"big": 1}}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["model.heads=5"],
            "model.heads=5 found, expected a number so that model.width=128 is a multiple of",
        ),
        (["model.kv_heads=3"], "model.kv_heads=3 found, expected a divisor of model.heads=4"),
        (["velvq.batch_cells=64"], "velvq.batch_cells=64 found, expected at least velvq.codebook_size=512"),
        (["tokenizer=base"], "stage=finetune learns velocities"),
        (["tokenizer.exact=false", "tokenizer.ties=explicit"], "tokenizer.exact=false found"),
        (["generate.by_kind.mood.top_p=1"], "no option 'generate.by_kind.mood'"),
        (["generate.by_kind.pitch.tempo=1"], "no option 'generate.by_kind.pitch.tempo'"),
        (["generate.by_kind.pitch.top_p=7"], "generate.by_kind.pitch.top_p=7 found, expected a number"),
        (["loader.source_weights.asap=-1"], "loader.source_weights.asap=-1"),
        (["logger.mine=5"], "logger.mine=5 found, expected an entry with a _target_"),
        (["hardware.devices=0"], "hardware.devices=0 found, expected a whole number of at least 1 or auto"),
        (["trainer.accumulate_grad_batches=2", "loader.micro_batch_tokens=64"], "expected one of them"),
    ],
)
def test_options_that_do_not_fit_together_are_one_sentence(words: list[str], sentence: str) -> None:
    (found,) = config_problems(composed(*words))
    assert sentence in found


def test_a_value_from_a_yaml_file_is_told_once_under_its_own_key() -> None:
    cfg = composed()
    for group in (cfg, cfg["base"], cfg["finetune"]):
        group["trainer"]["max_steps"] = -5
    assert config_problems(cfg) == ["trainer.max_steps=-5 found, expected a whole number of at least 1"]
    cfg = composed()
    cfg["finetune"]["trainer"]["max_steps"] = -5
    assert config_problems(cfg) == [
        "finetune.trainer.max_steps=-5 found, expected a whole number of at least 1"
    ]
    cfg["surplus"] = 1
    assert len(config_problems(cfg)) == 2


def test_choices_of_a_users_own_directory_count(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("width: 64\n")
    assert "mine" in choices([CONFIG_DIR, tmp_path])["model"]


def test_the_default_configuration_has_no_problem() -> None:
    assert config_problems(composed()) == []
