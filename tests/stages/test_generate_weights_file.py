"""Stage `generate` with a plain weights file, a codebook and a codec instead of a published model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pianolm import PianoLM
from pianolm.errors import UserError
from pianolm.music.midi import read_midi
from pianolm.tokenizer.codebook_file import save_codebook
from tests.evaluation.toys import model_directory
from tests.stages.conftest import CONTEXT
from tests.stages.playing import HOT, MIDI_ONLY, generate


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `weights.pt`, `weights.safetensors`, `codebook.npz`, `codec/` and `tokenizer/`."""
    root = tmp_path_factory.mktemp("parts")
    model_directory(root / "model", velocity=True, context=CONTEXT)
    lm = PianoLM.from_pretrained(root / "model")
    weights = {f"net.llama.{name}": tensor.clone() for name, tensor in lm.model.state_dict().items()}
    del weights["net.llama.lm_head.weight"]
    torch.save(weights, root / "weights.pt")
    save_file(weights, root / "weights.safetensors")
    save_codebook(lm.tokenizer.codebook, root / "codebook.npz")
    lm.tokenizer.codec.save(root / "codec")
    lm.tokenizer.save_pretrained(root / "tokenizer")
    return root


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("given", ["codec", "tokenizer", "none"])
def test_a_weights_file_generates_what_the_published_model_does(
    name: str, given: str, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = PianoLM.from_pretrained(parts / "model").model.config.num_attention_heads
    settings = (
        f"model.heads={heads}",
        f"loader.context={CONTEXT}",
        f"generate.temperature={HOT}",
        *MIDI_ONLY,
    )
    upstream = {
        "codec": (f"upstream.codebook={parts}/codebook.npz", f"upstream.velvq={parts}/codec"),
        "tokenizer": (f"upstream.tokenizer={parts}/tokenizer",),
        "none": (f"upstream.codebook={parts}/codebook.npz",),
    }
    metrics, run_dir = generate(tmp_path, parts / name, *settings, *upstream[given])
    said = f"heads={heads}, rope_theta=10000.0 and context={CONTEXT} are those of the configuration"
    assert said in capsys.readouterr().out
    assert not (tmp_path / "artifacts").exists(), "nothing is built"
    assert metrics["valid_fraction"] == 1.0
    if given == "none":
        assert metrics["distinct_velocities"] == 1
        return
    _, published = generate(tmp_path / "published", parts / "model", *settings)
    assert (run_dir / "piece_00.mid").read_bytes() == (published / "piece_00.mid").read_bytes()


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("codec", [(), ("upstream.velvq={parts}/codec",)])
def test_a_weights_file_generates_in_the_published_layout(
    codec: tuple[str, ...], parts: Path, tmp_path: Path
) -> None:
    settings = ("tokenizer=published", "upstream.codebook={parts}/codebook.npz", "model.heads=2", *codec)
    settings = tuple(text.format(parts=parts) for text in settings)
    hot = (f"generate.temperature={HOT}", "generate.beats=8", *MIDI_ONLY)
    metrics, run_dir = generate(tmp_path, parts / "weights.pt", *settings, *hot)
    assert metrics["valid_fraction"] == 1.0
    assert (metrics["distinct_velocities"] > 1) == bool(codec)
    bpm = 6e7 / read_midi(run_dir / "piece_00.mid").tempo.tempo_us
    assert bpm.size > 1
    assert np.allclose(bpm % 10, 5, atol=0.01), "each beat has the middle of a bin of 10 BPM"


WEIGHTS = ("upstream.model={parts}/weights.pt", "model.heads=2")
BAD_WEIGHTS = {
    "no codebook": (WEIGHTS, r"weights\.pt: a plain weights file .* add upstream\.codebook=FILE"),
    "another vocabulary": (
        (*WEIGHTS, "upstream.codebook={parts}/codebook.npz", "tokenizer.vocabulary.tempo=40"),
        r"embedding of 4789 ids, the tokenizer has 4779",
    ),
    "heads": (
        (*WEIGHTS, "upstream.codebook={parts}/codebook.npz", "model.heads=16"),
        r"do not divide into heads=16|found, expected",
    ),
    "no such file": (("upstream.model={parts}/none.pt",), r"none\.pt: no such file"),
    "no model": (
        ("upstream.model={parts}/codec/codec.safetensors", "upstream.codebook={parts}/codebook.npz"),
        r"no weights of a Llama language model",
    ),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_a_weights_file_that_does_not_fit_is_one_sentence(case: str, parts: Path, tmp_path: Path) -> None:
    overrides, expected = BAD_WEIGHTS[case]
    with pytest.raises(UserError, match=expected) as error:
        generate(tmp_path, parts / "model", *(text.format(parts=parts) for text in overrides))
    assert "\n" not in str(error.value)
