"""Sampling token sequences from a language model: a key/value cache, the grammar's constraint, a batch of pieces.

Shapes: B pieces, T tokens, V ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.tokens.grammar import Grammar, Phase, State
from pianolm.tokens.vocabulary import Kind


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: Divides the logits; 0 takes the most likely token.
        top_k: Keeps the k most likely ids; 0 keeps all.
        top_p: Keeps the most likely ids whose probabilities first reach p together.
    """

    temperature: float = 0.95
    top_k: int = 0
    top_p: float = 0.97

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UserError(f"temperature={self.temperature} found, expected 0 (most likely) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} found, expected more than 0 and at most 1")
        if self.top_k < 0:
            raise UserError(f"top_k={self.top_k} found, expected 0 (off) or more")


@dataclass
class _Sequence:
    """One piece in the making."""

    ids: list[int]
    state: State
    beats: int
    generator: torch.Generator
    done: bool = False
    beat_at: list[int] = field(default_factory=list)


@torch.inference_mode()
def sample(
    model: LlamaForCausalLM,
    grammar: Grammar,
    prompts: Sequence[NDArray[np.int64]],
    beats: int,
    seeds: Sequence[int],
    sampling: Sampling,
) -> list[NDArray[np.int64]]:
    """Continues each prompt by `beats` beats; everything sampled is well-formed.

    A piece ends when the model says EOS or when the beats are full, then with EOS put in. Each piece draws from a
    generator of its own, so what it becomes does not depend on its seed's neighbours but for rounding. When the
    context is full, the cache is filled again from the last whole beats, at least half the context where beats are
    short enough.

    Args:
        model: Any Llama over the grammar's vocabulary.
        grammar: Says what may come next.
        prompts: Well-formed beginnings, each with BOS first.
        beats: New beats a piece.
        seeds: One a piece.
        sampling: Temperature and cuts.

    Returns:
        Ids of each piece [T], prompt included, EOS last.
    """
    sequences = [_start(grammar, p, beats, s) for p, s in zip(prompts, seeds, strict=True)]
    context = int(model.config.max_position_embeddings)
    for sequence in sequences:
        last_beat = len(sequence.ids) - (sequence.beat_at[-1] if sequence.beat_at else 0)
        if last_beat >= context:
            raise UserError(
                f"prompt: its last beat has {last_beat} tokens, the model's context {context}; give a shorter prompt"
            )
    decoder = _BatchDecoder(model, sequences, context, grammar.vocabulary.pad)
    while not all(sequence.done for sequence in sequences):
        logits_BV = decoder.next_logits()
        for row, sequence in enumerate(sequences):
            if not sequence.done:
                _append(sequence, _draw(logits_BV[row], sequence, grammar, sampling), grammar)
    return [np.array(sequence.ids, np.int64) for sequence in sequences]


def _start(grammar: Grammar, prompt: NDArray[np.int64], beats: int, seed: int) -> _Sequence:
    state = grammar.start()
    ids = prompt.tolist()
    if ids and ids[-1] == grammar.vocabulary.eos:
        ids.pop()
    beat_at = []
    for position, token in enumerate(ids):
        state = grammar.advance(state, token)
        if grammar.kind_of[token] == Kind.TEMPO:
            beat_at.append(position)
    generator = torch.Generator().manual_seed(seed)
    return _Sequence(ids, state, len(beat_at) + beats, generator, beat_at=beat_at)


def _append(sequence: _Sequence, token: int, grammar: Grammar) -> None:
    """Takes a token, or EOS in its place where it would begin a beat too many."""
    kind = grammar.kind_of[token]
    if kind == Kind.TEMPO and len(sequence.beat_at) >= sequence.beats:
        token, kind = grammar.vocabulary.eos, Kind.EOS
    if kind == Kind.TEMPO:
        sequence.beat_at.append(len(sequence.ids))
    sequence.state = grammar.advance(sequence.state, token)
    sequence.ids.append(token)
    sequence.done = sequence.state.phase == Phase.ENDED


def _draw(logits_V: Tensor, sequence: _Sequence, grammar: Grammar, sampling: Sampling) -> int:
    """The next token of one piece."""
    allowed = torch.from_numpy(grammar.allowed(sequence.state))
    logits_V = logits_V.masked_fill(~allowed, float("-inf"))
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    logits_V = logits_V / sampling.temperature
    if 0 < sampling.top_k < int(allowed.sum()):
        logits_V = logits_V.masked_fill(logits_V < logits_V.topk(sampling.top_k).values[-1], float("-inf"))
    probability, order = logits_V.softmax(0).sort(descending=True)
    before = probability.cumsum(0) - probability
    probability = probability.masked_fill(before >= sampling.top_p, 0.0)
    choice = torch.multinomial(probability / probability.sum(), 1, generator=sequence.generator)
    return int(order[choice])


def _window(sequence: _Sequence, context: int) -> list[int]:
    """What of a piece the model sees: all, or where it is too long the last beats that fill half the context.

    Where even the last beat is longer than half, that beat.
    """
    if len(sequence.ids) < context:
        return sequence.ids
    keep = len(sequence.ids) - context // 2
    starts = [at for at in sequence.beat_at if len(sequence.ids) - at < context]
    fitting = [at for at in starts if at <= keep]
    first = max(fitting) if fitting else min(starts, default=len(sequence.ids) - context + 1)
    return sequence.ids[first:]


class _BatchDecoder:
    """Feeds a batch of pieces to the model, one token each a call, with a cache.

    Prompts of different lengths are padded in front; padding is masked and does not count as a position.
    """

    def __init__(self, model: LlamaForCausalLM, sequences: list[_Sequence], context: int, pad: int) -> None:
        self._model, self._sequences, self._context, self._pad = model, sequences, context, pad
        self._cache: DynamicCache | None = None
        self._mask_BT = torch.zeros(len(sequences), 0, dtype=torch.long)

    def next_logits(self) -> Tensor:
        """[B, V] logits of the next token, on the CPU in float32; rows of finished pieces mean nothing."""
        full = self._mask_BT.shape[1] + 1 > self._context
        if self._cache is None or full:
            return self._fill()
        last_B1 = torch.tensor([[s.ids[-1]] for s in self._sequences])
        self._mask_BT = torch.cat([self._mask_BT, torch.ones_like(last_B1)], dim=1)
        return self._forward(last_B1)

    def _fill(self) -> Tensor:
        windows = [_window(s, self._context) if not s.done else s.ids[-1:] for s in self._sequences]
        width = max(map(len, windows))
        ids_BT = torch.tensor([[self._pad] * (width - len(w)) + w for w in windows])
        self._mask_BT = torch.tensor([[0] * (width - len(w)) + [1] * len(w) for w in windows])
        self._cache = DynamicCache(config=self._model.config)
        return self._forward(ids_BT)

    def _forward(self, ids_BT: Tensor) -> Tensor:
        device = self._model.device
        position_BT = (self._mask_BT.cumsum(1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :]
        output = self._model(
            input_ids=ids_BT.to(device),
            attention_mask=self._mask_BT.to(device),
            position_ids=position_BT.to(device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float().cpu()
