"""Stage finetune: warm starts from a base model, and weights that do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pianolm import PianoTokenizer
from pianolm.errors import UserError
from pianolm.stage import Metrics, StageContext
from pianolm.stages import base, finetune
from pianolm.tokenizer.velocity.segment import SegmentCodec
from pianolm.tokenizer.vocabulary import Kind
from tests.lm.stage_toys import (
    METRICS,
    VOCABULARY,
    context,
    tokenizer,
    validated,
    weights,
    write_tokens,
)
from tests.toy_tokens import EMBEDDINGS

pytestmark = pytest.mark.usefixtures("without_curves")  # only the run of `trained` draws them


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_finetune_starts_from_the_weights_of_base(
    optimizer: str, trained: tuple[StageContext, Metrics], tokens: Path, tmp_path: Path
) -> None:
    source = trained[0].out
    ctx = context(
        tmp_path,
        "finetune",
        {"tokens": tokens, "base": source},
        training={"name": optimizer, "lr": 1e-12, "adamw_lr": 1e-12, "max_steps": 1},
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
