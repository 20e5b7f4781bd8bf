"""Engines give the logits of transformers' full forward pass; on a CPU no row depends on the other rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.generation.engine.base import Engine
from pianolm.generation.engine.llama_weights import LlamaWeights, llama_of
from pianolm.generation.engine.numpy_engine import NumpyEngine
from pianolm.generation.engine.products import Products
from pianolm.generation.engine.torch_engine import TorchEngine
from pianolm.tokenizer.vocabulary import Vocabulary
from tests.toy_lm import CONTEXT, toy_llama

TOLERANCE = 1e-4
"""Of float32 logits that reach 10 and more."""
SMALL = Vocabulary(l1=16, l2=8, l3=4, velocity=8, reserved=377, tempo=5)
ORDER = np.random.default_rng(0).permutation(SMALL.size)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2},
    "wide": {"hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.005},
    "everything else": {
        "num_key_value_heads": 1,
        "tie_word_embeddings": False,
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 16,
        "rms_norm_eps": 1e-3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 200.0},
    },
}


def numpy_engine(model: LlamaForCausalLM, rows: int) -> Engine:
    return NumpyEngine(LlamaWeights(llama_of(model), ORDER), rows)


def torch_engine(model: LlamaForCausalLM, rows: int) -> Engine:
    return TorchEngine(model, ORDER, rows)


def tokens(rows: int) -> list[list[int]]:
    return np.random.default_rng(1).integers(0, SMALL.size, (rows, CONTEXT)).tolist()


def full_logits(model: LlamaForCausalLM, ids: Sequence[int]) -> np.ndarray:
    """[T, V] in the engines' order."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0].numpy()[:, ORDER]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("make", [numpy_engine, torch_engine])
def test_cached_logits_are_those_of_the_full_forward_pass(
    make: Callable[[LlamaForCausalLM, int], Engine], rows: int, kind: str
) -> None:
    """Rows of different lengths, extended in parts and token by token, up to a full cache, copied and cleared."""
    model = toy_llama(SMALL, **KINDS[kind])
    engine, ids = make(model, rows), tokens(rows)
    expected = [full_logits(model, piece) for piece in ids]
    lengths = [1 + 3 * row for row in range(rows)]

    def check() -> None:
        for row, length in enumerate(lengths):
            logits = engine.logits([row], 5, SMALL.size)[0]
            assert np.abs(logits - expected[row][length - 1, 5:]).max() < TOLERANCE
            assert engine.lengths[row] == length

    for row, length in enumerate(lengths):
        engine.extend(row, ids[row][:length])
    check()
    for _ in range(10):
        engine.read({row: ids[row][lengths[row] :][:1] for row in range(rows)})
        lengths = [length + 1 for length in lengths]
        check()
    engine.extend(0, ids[0][lengths[0] : lengths[0] + 3])
    lengths[0] += 3
    check()
    engine.extend(0, ids[0][lengths[0] :])
    lengths[0] = CONTEXT
    check()
    engine.clear(0)
    engine.extend(0, ids[0][:12])
    lengths[0] = 12
    check()
    engine.copy(0, rows - 1)
    expected[-1], lengths[-1], ids[-1] = expected[0], lengths[0], ids[0]
    check()
    engine.read({rows - 1: ids[0][12:13]})  # the other rows stay as they are
    lengths[-1] += 1
    check()
    engine.read({row: ids[row][lengths[row] :][:1] for row in range(rows)})
    lengths = [length + 1 for length in lengths]
    check()
    engine.read({row: ids[row][lengths[row] :][: 1 + row % 3] for row in range(rows)})
    lengths = [length + 1 + row % 3 for row, length in enumerate(lengths)]
    check()
    assert max(np.abs(one).max() for one in expected) > 3


@pytest.mark.parametrize("kind", ["grouped", "wide"])
@pytest.mark.parametrize("products", [None, Products(1), Products(1, by_dots=True)])
def test_rows_do_not_change_a_bit_of_each_other(kind: str, products: Products | None) -> None:
    model, (alone, *others) = toy_llama(SMALL, **KINDS[kind]), tokens(20)
    weights = LlamaWeights(llama_of(model), ORDER, products)
    one, many = NumpyEngine(weights, 1), NumpyEngine(weights, 20)
    one.extend(0, alone[:9])
    for row, ids in enumerate(others):
        many.extend(row, ids[: 2 + 2 * row])
    many.extend(19, alone[:9])
    for token in alone[9:]:
        one.read({0: [token]})
        busy = [row for row in range(19) if many.lengths[row] < CONTEXT]
        many.read({**{row: others[row][many.lengths[row] :][: 1 + row % 2] for row in busy}, 19: [token]})
        assert np.array_equal(one.logits([0], 0, SMALL.size), many.logits([0, 19, 1], 0, SMALL.size)[1:2])


def test_weights_of_lower_precision_are_used_in_float32_on_a_cpu() -> None:
    model = toy_llama(SMALL).to(torch.bfloat16)
    engine, ids = numpy_engine(model, 1), tokens(1)[0]
    engine.extend(0, ids)
    expected = full_logits(model.float(), ids)[-1]
    assert np.abs(engine.logits([0], 0, SMALL.size)[0] - expected).max() < TOLERANCE


@pytest.mark.parametrize("make", [numpy_engine, torch_engine])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
            "rope type 'linear'",
        ),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
    ],
)
def test_an_unsupported_model_is_refused(
    make: Callable[[LlamaForCausalLM, int], Engine], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make(toy_llama(SMALL, **change), 1)
