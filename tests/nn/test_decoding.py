"""Sampling: cached logits equal the full forward pass, everything sampled is well-formed, the context refills."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.nn import decoding
from pianolm.nn.decoding import Sampling, sample
from pianolm.nn.llama import build_llama
from pianolm.tokens.codebook import Patterns
from pianolm.tokens.fit import complete
from pianolm.tokens.tempo import TempoBins
from pianolm.tokens.tokenizer import PianoTokenizer
from pianolm.tokens.vocabulary import Kind, Vocabulary

CONTEXT = 48
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def tokenizer() -> PianoTokenizer:
    nothing = Patterns(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    return PianoTokenizer(complete([nothing] * 3, Vocabulary()), TempoBins())


@pytest.fixture(scope="module")
def model(tokenizer: PianoTokenizer) -> LlamaForCausalLM:
    torch.manual_seed(0)
    settings = {"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "ffn": 48, "rope_theta": 10000.0}
    v = tokenizer.vocabulary
    llama = build_llama(
        {**settings, "tie_embeddings": True, "dropout": 0.0}, v.size, v.pad, v.bos, v.eos, CONTEXT
    )
    with torch.no_grad():  # larger weights, so that logits differ enough to notice a mistake
        for parameter in llama.parameters():
            parameter.mul_(3)
    return llama.eval()


def prompts(tokenizer: PianoTokenizer) -> list[np.ndarray]:
    v = tokenizer.vocabulary
    tempo, pitch = v.offset(Kind.TEMPO) + 20, v.offset(Kind.PITCH)
    short = [v.bos]
    long = [v.bos, tempo, pitch + 60, 3, pitch + 64, 9, tempo, pitch + 50, 7]
    return [np.array(short), np.array(long), np.array(long[:5])[:2]]


def test_cached_logits_equal_the_full_forward_pass(
    model: LlamaForCausalLM, tokenizer: PianoTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a batch with prompts of different lengths, before and after refills."""
    checked = []
    draw = decoding._draw

    def spy(logits_V: torch.Tensor, sequence: decoding._Sequence, *rest: object) -> int:
        window = decoding._window(sequence, CONTEXT)
        if len(sequence.ids) < CONTEXT:
            with torch.inference_mode():
                full_V = model(input_ids=torch.tensor([window])).logits[0, -1].float()
            checked.append(float((full_V - logits_V).abs().max()))
        return draw(logits_V, sequence, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "_draw", spy)
    sample(model, tokenizer.grammar, prompts(tokenizer), 12, [1, 2, 3], Sampling())
    assert len(checked) > 40
    assert max(checked) < TOLERANCE


def test_everything_sampled_is_well_formed_also_beyond_the_context(
    model: LlamaForCausalLM, tokenizer: PianoTokenizer
) -> None:
    made = sample(
        model, tokenizer.grammar, prompts(tokenizer), 40, [1, 2, 3], Sampling(temperature=1.0, top_p=1.0)
    )
    assert max(ids.size for ids in made) > 2 * CONTEXT
    for ids, prompt in zip(made, prompts(tokenizer), strict=True):
        assert tokenizer.grammar.is_complete(ids)
        assert np.array_equal(ids[: prompt.size], prompt)
        assert tokenizer.decode(ids).skipped == 0


def test_length_counts_new_beats(model: LlamaForCausalLM, tokenizer: PianoTokenizer) -> None:
    made = sample(model, tokenizer.grammar, prompts(tokenizer), 3, [1, 2, 3], Sampling())
    tempos = [int((tokenizer.vocabulary.kind_of[ids] == Kind.TEMPO).sum()) for ids in made]
    assert all(t <= limit for t, limit in zip(tempos, (3, 5, 4), strict=True))


def test_seeds_decide(model: LlamaForCausalLM, tokenizer: PianoTokenizer) -> None:
    start = [prompts(tokenizer)[0]] * 2
    same = sample(model, tokenizer.grammar, start, 4, [7, 7], Sampling())
    other = sample(model, tokenizer.grammar, start, 4, [7, 8], Sampling())
    assert np.array_equal(same[0], same[1])
    assert np.array_equal(same[0], other[0])
    assert not np.array_equal(other[0], other[1])


def test_temperature_zero_and_top_k_one_take_the_most_likely(
    model: LlamaForCausalLM, tokenizer: PianoTokenizer
) -> None:
    start = [prompts(tokenizer)[1]]
    greedy = sample(model, tokenizer.grammar, start, 2, [1], Sampling(temperature=0))
    narrow = sample(model, tokenizer.grammar, start, 2, [2], Sampling(top_k=1))
    assert np.array_equal(greedy[0], narrow[0])


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": -2}])
def test_impossible_sampling_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_a_prompt_whose_last_beat_fills_the_context_is_refused(
    model: LlamaForCausalLM, tokenizer: PianoTokenizer
) -> None:
    v = tokenizer.vocabulary
    ids = [v.bos, v.offset(Kind.TEMPO)]
    for pitch in range(30, 60):
        ids += [v.offset(Kind.PITCH) + pitch, 0]
    with pytest.raises(UserError, match="shorter prompt"):
        sample(model, tokenizer.grammar, [np.array(ids)], 1, [0], Sampling())
