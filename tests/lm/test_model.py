from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pianolm.lm.model import build_llama, count_parameters, packing
from pianolm.lm.window_index import WindowIndex
from pianolm.lm.window_reader import WindowReader
from pianolm.lm.windows import pack
from pianolm.tokenizer.vocabulary import Vocabulary
from tests.lm.toys import toy_model
from tests.tiny import composed
from tests.toy_tokens import MODEL, ToyPiece, sequence, write_store

CONF = Path(__file__).parents[2] / "conf" / "model"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("tiny", 1_105_408), ("small", 12_460_800), ("medium", 88_631_808), ("large", 303_798_272)],
)
def test_sizes_are_those_written_in_the_config(name: str, parameters: int) -> None:
    text = (CONF / f"{name}.yaml").read_text()
    vocabulary = Vocabulary()
    with torch.device("meta"):
        v = vocabulary
        features = np.zeros((v.size, 9), np.float32)
        model = build_llama(composed(f"model={name}")["model"], v.size, v.pad, v.bos, v.eos, 512, features)
    assert count_parameters(model) == parameters
    assert f"# {parameters:,} parameters with a vocabulary of {vocabulary.size} ids" in text


def test_every_model_config_is_covered_here() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == {"tiny", "small", "medium", "large"}


def test_residual_layers_start_smaller_the_deeper_the_model_is() -> None:
    for layers in (2, 8):
        torch.manual_seed(0)
        model = build_llama({**MODEL, "layers": layers, "width": 64, "ffn": 128}, 50, 0, 1, 2, 32)
        std = model.config.initializer_range
        for number, layer in enumerate(model.model.layers):
            for residual in (*([layer.self_attn.o_proj] if number else []), layer.mlp.down_proj):
                assert residual.weight.std().item() == pytest.approx(std / (2 * layers) ** 0.5, rel=0.1)
            for other in (layer.self_attn.q_proj, layer.mlp.up_proj):
                assert other.weight.std().item() == pytest.approx(std, rel=0.1)


def test_a_model_is_causal() -> None:
    model = toy_model()
    ids = torch.from_numpy(sequence(0, beats=8)[:24])[None]
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embedded).logits
    logits[0, 10].sum().backward()
    assert embedded.grad is not None
    assert (embedded.grad[0, 11:] == 0).all()
    assert (embedded.grad[0, :11] != 0).any(dim=1).all()


def test_no_window_of_a_packed_row_attends_to_another(tmp_path: Path) -> None:
    """By zero gradient: the loss of the second window does not depend on what the first one holds."""
    store = write_store(tmp_path, [ToyPiece(sequence(seed, beats=1)) for seed in range(2)])
    rows = pack(WindowIndex(store, [0, 1], 256).validation().windows, 256)
    batch, model = WindowReader(store, 256).batch(rows, 1), toy_model()
    first = int(rows.windows.inputs[0])
    embedded = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    hidden = model.model(inputs_embeds=embedded, **packing(batch["position_ids"])).last_hidden_state
    hidden[0, first + 3].sum().backward()
    assert embedded.grad is not None
    assert (embedded.grad[0, :first] == 0).all()
    assert (embedded.grad[0, first : first + 4] != 0).any(dim=1).all()
