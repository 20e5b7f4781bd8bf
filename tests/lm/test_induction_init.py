"""Fresh weights: what a model expects before it has learned anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from pianolm.lm.embedding import current_table
from pianolm.lm.induction_init import COPY_GAIN
from pianolm.lm.model import build_llama
from tests.toy_tokens import EMBEDDINGS, MODEL

V, PAD, FIRST = 200, 0, 3
"""Ids below `FIRST` are marks."""


def fresh(embedding: str = "table", seed: int = 0, **changes: object) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    features = np.random.default_rng(seed).normal(size=(V, 60)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    sizes = {"width": 128, "heads": 4, "kv_heads": None, "layers": 2}
    given = {**MODEL, **sizes, "embedding": embedding, **changes}
    return build_llama(given, V, PAD, 1, 2, 512, features).eval()


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 1), (4, 2), (2, 2)])
def test_few_keys_begin_by_copying(heads: int, kv_heads: int) -> None:
    model = fresh(heads=heads, kv_heads=kv_heads)
    attention = model.model.layers[0].self_attn
    seen = torch.randn(1, 1, 128)
    cos_sin = model.model.rotary_emb(seen, torch.zeros(1, 1, dtype=torch.int64))
    passed_on = attention(seen, position_embeddings=cos_sin, attention_mask=None)[0]
    values = attention.v_proj.weight.detach()
    part = values.T @ (values @ seen[0, 0]) / COPY_GAIN  # what the heads' values hold
    assert torch.allclose(passed_on[0, 0], COPY_GAIN * part, atol=1e-4)
    assert torch.allclose(values @ values.T, COPY_GAIN * torch.eye(len(values)), atol=1e-4)
    assert torch.allclose(part, seen[0, 0], atol=1e-4) == (heads == kv_heads)  # all of it where none share


@pytest.mark.parametrize("changes", [{}, {"heads": 2}, {"layers": 1}, {"kv_heads": 2}, {"width": 64}])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_what_has_been_heard_is_expected(embedding: str, changes: dict[str, int]) -> None:
    heard = torch.randperm(V - FIRST, generator=torch.Generator().manual_seed(0))[:40] + FIRST
    with torch.no_grad():
        logits = fresh(embedding, **changes)(heard[None]).logits[0, -1]
    others = torch.ones(V, dtype=torch.bool)
    others[heard] = False
    others[:FIRST] = False
    assert logits[heard].mean() > logits[others].mean() + logits[others].std() / 2


def heads_of_a_repeat(
    model: LlamaForCausalLM, count: int
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Attention [heads, T, T] of each layer to some random ids that are then said again, logits [T, V], and the ids."""
    model.set_attn_implementation("eager")
    heard = torch.randint(FIRST, V, (1, count), generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    with torch.no_grad():
        said = model(heard, output_attentions=True)
    return [layer[0] for layer in said.attentions], said.logits[0], heard[0]


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize(
    ("width", "heads", "layers", "count"),
    [(128, 4, 4, 60), (128, 4, 3, 60), (256, 4, 2, 60), (192, 6, 5, 60), (256, 4, 4, 240), (128, 4, 2, 240)],
)
def test_what_followed_before_is_expected(
    embedding: str, width: int, heads: int, layers: int, count: int
) -> None:
    model = fresh(embedding, width=width, heads=heads, layers=layers)
    attention, logits, heard = heads_of_a_repeat(model, count)
    place = torch.arange(count + 4, 2 * count - 1)
    assert attention[0][-2, place, place].mean() > 0.8
    assert attention[0][-1, place, place - 1].mean() > 0.8
    looks_up = [(1, -1)]
    if layers > 2:
        for head, back in ((-2, 1), (-3, 2)):
            assert attention[1][head, place, place - back].mean() > 0.8
        looks_up += [(2, -1), (3, -1) if layers > 3 else (2, -2)]
    for layer, head in looks_up:
        weight_t = attention[layer][head, place, place - count + 1]  # of what followed the last time
        assert (weight_t * (place + 1)).median() > 4, (layer, head)  # times as much as one of all alike
    log_p = logits.log_softmax(1)[place]
    follows = log_p.gather(1, heard[place + 1, None])[:, 0]
    others = log_p[:, heard[:count].unique()]  # which have been heard, too
    assert ((follows - others.mean(1)) / others.std(1)).mean() > 0.5  # 0 where a model only copies


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_what_heads_note_is_not_in_the_logits(embedding: str) -> None:
    model = fresh(embedding, layers=4)
    table = current_table(model).detach()
    assert torch.equal(table[:, 64:-1], torch.zeros(V, 63))
    value = table[FIRST:, -1]
    assert torch.allclose(value, value[:1])
    assert float(value[0]) > 0
    assert embedding == "codebook" or not table[PAD].any()
    norm = table[FIRST:].norm(dim=1)
    assert float(norm.mean()) == pytest.approx(0.02 * (2 * 128) ** 0.5, rel=0.1)
    first, second = (model.model.layers[layer].self_attn.o_proj.weight for layer in (0, 1))
    of_copies, of_notes, of_look_up, of_fetched = (
        first[64:, :64],
        first[:64, 64:],
        second[64:, 96:],
        second[:64, 32:96],
    )
    assert not any(weights.any() for weights in (of_copies, of_notes, of_look_up, of_fetched))


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("changes", [{"layers": 4}, {"kv_heads": 2}])
def test_it_begins_without_memory(embedding: str, changes: dict[str, int]) -> None:
    with torch.device("meta"):
        model = fresh(embedding, **changes)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_plain_weights_are_random() -> None:
    table = fresh(init="plain").get_input_embeddings().weight
    assert float(table[FIRST:].detach().std()) == pytest.approx(0.02, rel=0.1)
