from __future__ import annotations

import copy
import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from transformers import LlamaForCausalLM

from pianolm import PianoTokenizer
from pianolm.config.training import STAGE_GROUPS
from pianolm.data.token_store import TokenStoreWriter
from pianolm.errors import UserError
from pianolm.lm.datamodule import LMDataModule
from pianolm.music.cells import FRAMES, frames_to_cells, resolve_collisions
from pianolm.pipeline.launch import other_processes
from pianolm.report.training_log import Curves, find_runs, read_curves
from pianolm.stage import Metrics, StageContext
from pianolm.stages import base, finetune
from pianolm.tokenizer.codebook import Patterns
from pianolm.tokenizer.codebook_fit import complete
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.velocity.segment import SegmentCodec
from pianolm.tokenizer.vocabulary import Kind, Vocabulary
from pianolm.training import trainer
from tests.tiny import composed
from tests.toy_tokens import EMBEDDINGS, MODEL, settings

VOCABULARY = Vocabulary(l1=16, l2=8, l3=8, velocity=8, reserved=377, tempo=20)
METRICS = {
    "val/loss",
    "val/loss_tempo",
    "val/loss_pitch",
    "val/loss_pattern",
    "val/unigram_entropy",
    "val/bits_per_note",
    "train/tokens_per_second",
    "train/padding_fraction",
    "parameters",
    "tokens_seen",
    "resumed_from_step",
}


def tokenizer(tempo: str = "log50") -> PianoTokenizer:
    """Without velocities: the codec has tests of its own, and these stages treat its ids like any others."""
    nothing = Patterns(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    return PianoTokenizer(complete([nothing] * 3, VOCABULARY), TempoBins(tempo, VOCABULARY.tempo))


class Row:
    """A piece as the cell store describes it."""

    source, composition, flat, kind = "toy", "toy", False, "performance"

    def __init__(self, index: int, split: str, notes: int) -> None:
        self.id, self.split, self.notes = f"piece {index}", split, notes


def random_ids(tok: PianoTokenizer, seed: int, beats: int = 16) -> tuple[np.ndarray, int]:
    rng = np.random.default_rng(seed)
    onset = rng.integers(0, beats * FRAMES - 1, 40)
    pitch, velocity = rng.integers(40, 80, 40).astype(np.uint8), np.full(40, 64, np.uint8)
    frames, _ = resolve_collisions(onset, onset + 12, pitch, velocity, beats * FRAMES)
    cells = frames_to_cells(frames, beats)
    return tok.encode_cells(cells, np.arange(beats + 1) * 0.5), cells.struck_notes


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stage=tokenize publishes."""
    return write_tokens(tmp_path_factory.mktemp("tokens"), tokenizer())


def write_tokens(directory: Path, tok: PianoTokenizer) -> Path:
    tok.save_pretrained(directory / "tokenizer")
    with TokenStoreWriter(directory, tok) as writer:
        for seed in range(6):
            ids, notes = random_ids(tok, seed)
            writer.add(Row(seed, "train" if seed < 5 else "validation", notes), ids)
    return directory


@functools.cache
def plain_config(stage: str) -> dict[str, Any]:
    return composed("logger=csv", "hardware=cpu", "trainer.log_every_n_steps=1", f"stage={stage}")


def context(folder: Path, name: str, upstream: dict[str, Path], **changes: Any) -> StageContext:
    """A stage's context for toy tokens; `training` changes options of trainer, optimizer, loader and loss."""
    cfg = copy.deepcopy(plain_config(name))
    cfg["model"] = {**MODEL, "compile": False}
    del cfg["callbacks"]["progress"]
    cfg["callbacks"]["checkpoint"]["every_n_steps"] = 1
    training = {**settings(max_steps=6, val_check_interval=3), **changes.pop("training", {})}
    for key, value in training.items():
        for group in STAGE_GROUPS:
            if key in cfg[name][group]:
                cfg[name][group][key] = value
    for key, value in changes.items():
        cfg[key] = {**cfg.get(key, {}), **value} if isinstance(value, dict) else value
    directories = [folder / part for part in ("out", "work", "run")]
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
    return StageContext(cfg, upstream, *directories, name=name, fingerprint="0123456789abcdef")


@pytest.fixture(autouse=True)
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the curves takes longer than these runs; only the run of `trained` draws them."""
    monkeypatch.setattr(trainer, "_curves", lambda ctx: {})


@pytest.fixture(scope="module")
def trained(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageContext, Metrics]:
    ctx = context(tmp_path_factory.mktemp("base"), "base", {"tokens": tokens})
    return ctx, base.run(ctx)


def weights(ctx: StageContext) -> dict[str, torch.Tensor]:
    return LlamaForCausalLM.from_pretrained(ctx.out).state_dict()


def test_base_publishes_a_model_that_transformers_reads(trained: tuple[StageContext, Metrics]) -> None:
    ctx, _ = trained
    model = LlamaForCausalLM.from_pretrained(ctx.out)
    assert model.config.vocab_size == VOCABULARY.size
    assert (model.config.bos_token_id, model.config.pad_token_id) == (VOCABULARY.bos, VOCABULARY.pad)
    assert model.config.max_position_embeddings == 32
    assert PianoTokenizer.from_pretrained(ctx.out).hashes == tokenizer().hashes
    assert not list(ctx.out.rglob("*.ckpt"))


def test_base_returns_the_metrics_of_the_design(trained: tuple[StageContext, Metrics]) -> None:
    ctx, metrics = trained
    assert set(metrics) >= METRICS
    assert "val/loss_velocity" not in metrics
    model = LlamaForCausalLM.from_pretrained(ctx.out)
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())
    assert metrics["resumed_from_step"] == 0
    slots = 6 * 4 * 32
    assert metrics["tokens_seen"] == pytest.approx(slots * (1 - float(metrics["train/padding_fraction"])))
    json.dumps(metrics)


def validated(ctx: StageContext, tokens: Path) -> float:
    """Validation loss of what was published, by plain means."""
    model = LlamaForCausalLM.from_pretrained(ctx.out).eval()
    data = LMDataModule(tokens, ctx.cfg["base"]["loader"], max_steps=6, seed=0)
    data.setup("validate")
    nats = targets = 0.0
    with torch.no_grad():
        for batch in data.val_dataloader():
            logits = model(input_ids=batch["input_ids"]).logits.flatten(0, 1)
            labels = batch["labels"].flatten()
            nats += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
            targets += int((labels != -100).sum())
    return nats / targets


def test_val_metrics_are_those_of_the_published_weights(
    trained: tuple[StageContext, Metrics], tokens: Path
) -> None:
    ctx, metrics = trained
    assert metrics["val/loss"] == pytest.approx(validated(ctx, tokens), rel=1e-4)


def test_the_same_seed_gives_the_same_weights(
    trained: tuple[StageContext, Metrics], tokens: Path, tmp_path: Path
) -> None:
    again = context(tmp_path, "base", {"tokens": tokens})
    base.run(again)
    for name, value in weights(trained[0]).items():
        assert torch.equal(value, weights(again)[name])


class KilledError(Exception):
    """Stands for a process that ends in the middle."""


class KillAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise KilledError


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(
    embedding: str, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model": {"dropout": 0.1, "embedding": embedding}, "training": {"micro_batch_tokens": 64}}
    unbroken = context(tmp_path / "unbroken", "base", {"tokens": tokens}, **changes)
    expected = base.run(unbroken)
    broken = context(tmp_path / "broken", "base", {"tokens": tokens}, **changes)
    plain = trainer._callbacks
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_callbacks", lambda *given: [*plain(*given), KillAfter(4)])
        with pytest.raises(KilledError):
            base.run(broken)
    resumed = dataclasses.replace(broken, run_dir=tmp_path / "second run")
    metrics = base.run(resumed)
    assert metrics["resumed_from_step"] == 4
    assert metrics["tokens_seen"] == expected["tokens_seen"]
    assert metrics["val/loss"] == expected["val/loss"]
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(broken)[name]), name
    whole, joined = curves(unbroken), curves(resumed)
    assert joined.resumed_at == [4]
    for name in ("train/loss", "train/loss_pitch", "val/loss", "tokens_seen", "gradient_norm"):
        assert np.array_equal(joined.columns[name], whole.columns[name]), name


def curves(ctx: StageContext) -> Curves:
    """What the loggers of a run directory hold."""
    return read_curves(find_runs(ctx.run_dir)[ctx.run_dir][ctx.name])


def test_loggers_and_a_picture_show_the_course_of_training(trained: tuple[StageContext, Metrics]) -> None:
    ctx, metrics = trained
    columns = curves(ctx).columns
    for name in (
        *("train/loss", "train/loss_tempo", "train/loss_pitch", "train/loss_pattern", "train/bits_per_note"),
        *("learning_rate", "gradient_norm", "memory_mb", "tokens_seen", "train/padding_fraction"),
    ):
        assert columns[name][0].tolist() == [1, 2, 3, 4, 5, 6], name
    assert columns["train/tokens_per_second"][0].tolist() == [2, 3, 4, 5, 6], "the first step warms up"
    assert columns["val/loss_pitch"][0].tolist() == [3, 6]
    assert columns["tokens_seen"][1][-1] == metrics["tokens_seen"]
    assert (ctx.run_dir / "curves_base.png").is_file()


def test_a_finished_run_extended_is_the_longer_run(tokens: Path, tmp_path: Path) -> None:
    """With a constant learning rate, six steps and six more are twelve steps, to the last bit."""
    constant = {"min_lr_fraction": 1.0, "warmup_steps": 0}
    long = context(tmp_path / "long", "base", {"tokens": tokens}, training={**constant, "max_steps": 12})
    expected = base.run(long)
    short = context(tmp_path / "short", "base", {"tokens": tokens}, training={**constant, "max_steps": 6})
    base.run(short)
    checkpoint = short.work / "last.ckpt"
    more = context(
        tmp_path / "more",
        "base",
        {"tokens": tokens},
        training={**constant, "max_steps": 12},
        resume=str(checkpoint),
    )
    metrics = base.run(more)
    assert metrics["resumed_from_step"] == 6
    assert metrics["tokens_seen"] == expected["tokens_seen"]
    states = [torch.load(ctx.work / "last.ckpt", weights_only=True)["state_dict"] for ctx in (long, more)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_two_processes_take_the_steps_that_one_takes(embedding: str, tokens: Path, tmp_path: Path) -> None:
    """Weights after three steps of AdamW, which moves each by about a thousandth a step, differ by less than 1e-5."""
    states, losses = [], []
    for processes in (1, 2):
        ctx = context(
            tmp_path / str(processes),
            "base",
            {"tokens": tokens},
            model={"embedding": embedding},
            training={"max_steps": 3, "transpose": 4, "lr": 1e-3, "devices": processes},
            compute={"threads": 1},
        )
        with other_processes(ctx):
            metrics = base.run(ctx)
        states.append(weights(ctx))
        losses.append(metrics["val/loss"])
    for name, one in states[0].items():
        assert torch.allclose(one, states[1][name], atol=1e-5, rtol=0), name
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "trained for 6 steps already, and 6 are asked for; give a larger trainer.max_steps"),
        ({"training": {"max_steps": 9}, "model": {"ffn": 64}}, "give the settings it was trained with"),
        (
            {"training": {"max_steps": 9}, "tokenizer": {"ties": "implicit"}},
            "trained with tokenizer.ties=repeat, but tokenizer.ties=implicit is asked for",
        ),
        (
            {"training": {"max_steps": 9, "constrained": True}},
            "trained with loss.constrained=False, but loss.constrained=True is asked for",
        ),
        ({"resume": "nowhere"}, "resume=nowhere: no checkpoint nowhere; expected auto, never"),
        ({"resume": __file__}, "not a checkpoint of pianolm"),
    ],
)
def test_a_run_that_cannot_be_extended_is_one_sentence(
    trained: tuple[StageContext, Metrics],
    tokens: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    given = {"resume": str(trained[0].work / "last.ckpt"), **changes}
    with pytest.raises(UserError, match=message):
        base.run(context(tmp_path, "base", {"tokens": tokens}, **given))


def test_a_run_of_another_network_is_one_sentence(
    trained: tuple[StageContext, Metrics], tokens: Path, tmp_path: Path
) -> None:
    saved = torch.load(trained[0].work / "last.ckpt", weights_only=True)
    name = next(name for name in saved["state_dict"] if name.endswith("embed_tokens.weight"))
    saved["state_dict"][name] = saved["state_dict"][name][:, 1:]
    torch.save(saved, tmp_path / "other.ckpt")
    changes = {"resume": str(tmp_path / "other.ckpt"), "training": {"max_steps": 9}}
    with pytest.raises(UserError, match=r"embed_tokens\.weight found with shape .* made by another version"):
        base.run(context(tmp_path, "base", {"tokens": tokens}, **changes))


def test_a_constrained_loss_is_lower_and_noted_in_the_config(
    trained: tuple[StageContext, Metrics], tokens: Path, tmp_path: Path
) -> None:
    ctx = context(tmp_path / "a", "base", {"tokens": tokens}, training={"constrained": True})
    assert base.run(ctx)["val/loss"] < trained[1]["val/loss"] - 0.1
    for directory, says in ((ctx.out, True), (trained[0].out, False)):
        assert json.loads((directory / "config.json").read_text()).get("constrained_loss", False) == says


def test_early_stopping_stops_a_run_that_gets_worse(tokens: Path, tmp_path: Path) -> None:
    training = {"max_steps": 40, "val_check_interval": 2, "lr": 3.0, "gradient_clip_val": None}
    entry = {
        "_target_": "pianolm.training.checkpointing.early_stopping",
        "_partial_": True,
        "patience": 2,
    }
    ctx = context(
        tmp_path, "base", {"tokens": tokens}, training=training, callbacks={"early_stopping": entry}
    )
    metrics = base.run(ctx)
    assert 4 <= torch.load(ctx.work / "last.ckpt", weights_only=True)["global_step"] < 40
    assert metrics["val/loss"] < 60  # of the first validation, the best
    entry = {**entry, "patience": 0}
    with pytest.raises(UserError, match=r"patience=0 found, expected at least 1"):
        base.run(context(tmp_path / "b", "base", {"tokens": tokens}, callbacks={"early_stopping": entry}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler warns about itself
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # it asks, and hides the answer
def test_a_compiled_run_equals_a_plain_one(tokens: Path, tmp_path: Path) -> None:
    plain, compiled = (
        context(
            tmp_path / str(compiled),
            "base",
            {"tokens": tokens},
            model={"embedding": "codebook", "compile": compiled},
        )
        for compiled in (False, True)
    )
    assert base.run(compiled)["val/loss"] == pytest.approx(base.run(plain)["val/loss"], rel=1e-3)
    assert weights(compiled).keys() == weights(plain).keys()


def test_finetune_starts_from_the_weights_of_base(
    trained: tuple[StageContext, Metrics], tokens: Path, tmp_path: Path
) -> None:
    source = trained[0].out
    ctx = context(
        tmp_path,
        "finetune",
        {"tokens": tokens, "base": source},
        training={"lr": 1e-12, "max_steps": 1},
    )
    finetune.run(ctx)
    for name, value in weights(ctx).items():
        assert torch.allclose(value, weights(trained[0])[name], atol=1e-6)


def velocity_tokens(folder: Path) -> Path:
    """With one code for every sixteenth velocity."""
    softest = np.arange(8, 128, 16, dtype=np.uint8)
    codec = SegmentCodec.from_tables([np.repeat(softest[:, None], n, axis=1) for n in (1, 2)])
    plain = tokenizer()
    return write_tokens(folder, PianoTokenizer(plain.codebook, plain.tempo, codec))


@pytest.mark.parametrize("of", EMBEDDINGS)
def test_a_warm_start_keeps_fresh_rows_for_velocities_that_base_lacks(
    of: str, tokens: Path, tmp_path: Path
) -> None:
    """Rows of neighbouring codes are similar, as their features are; in the table of the base model they are noise."""
    source = context(tmp_path / "base", "base", {"tokens": tokens}, model={"embedding": of})
    base.run(source)
    ctx = context(
        tmp_path,
        "finetune",
        {"tokens": velocity_tokens(tmp_path / "velocity"), "base": source.out},
        model={"embedding": "codebook"},
        training={"lr": 1e-12, "max_steps": 1},
    )
    assert set(finetune.run(ctx)) >= METRICS | {"val/loss_velocity"}
    before, after = (weights(c)["model.embed_tokens.weight"] for c in (source, ctx))
    velocity = torch.from_numpy(VOCABULARY.kind_of == Kind.VELOCITY)
    assert torch.allclose(before[~velocity], after[~velocity], atol=1e-6)
    assert not torch.isclose(before[velocity], after[velocity]).all(dim=1).any()
    rows = torch.nn.functional.normalize(after[velocity] - after[velocity].mean(dim=0))
    cosine = rows @ rows.T
    assert cosine.diagonal(1).mean() > cosine.diagonal(5).mean() + 0.1  # of 8 codes in 16 dimensions


def test_weights_of_both_embeddings_are_published_alike(
    trained: tuple[StageContext, Metrics], tokens: Path, tmp_path: Path
) -> None:
    ctx = context(tmp_path, "base", {"tokens": tokens}, model={"embedding": "codebook"})
    metrics = base.run(ctx)
    assert {name: value.shape for name, value in weights(ctx).items()} == {
        name: value.shape for name, value in weights(trained[0]).items()
    }
    assert metrics["parameters"] == trained[1]["parameters"]
    assert metrics["val/loss"] == pytest.approx(validated(ctx, tokens), rel=1e-4)


def test_finetune_from_scratch_needs_no_base(tokens: Path, tmp_path: Path) -> None:
    ctx = context(
        tmp_path / "a",
        "finetune",
        {"tokens": tokens},
        finetune={"from_scratch": True},
        training={"max_steps": 1},
    )
    assert set(finetune.run(ctx)) >= METRICS


@pytest.mark.parametrize("form", [".", "model.safetensors"])
def test_a_base_of_another_tokenizer_is_one_sentence_that_names_both(
    form: str, trained: tuple[StageContext, Metrics], tmp_path: Path
) -> None:
    other = tokenizer("published")
    path = trained[0].out / form
    ctx = context(
        tmp_path / "run", "finetune", {"tokens": write_tokens(tmp_path / "tokens", other), "base": path}
    )
    with pytest.raises(UserError) as caught:
        finetune.run(ctx)
    for part in (f"upstream.base={path}", tokenizer().hashes["tempo"], other.hashes["tempo"], "tempo"):
        assert part in str(caught.value)


def test_weights_without_a_tokenizer_beside_them_are_not_compared(
    trained: tuple[StageContext, Metrics], tokens: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.safetensors"
    shutil.copy(trained[0].out / "model.safetensors", alone)
    ctx = context(tmp_path, "finetune", {"tokens": tokens, "base": alone}, training={"max_steps": 1})
    assert set(finetune.run(ctx)) >= METRICS
