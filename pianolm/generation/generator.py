"""Token by token generation of several pieces at once, constrained by the grammar.

Shapes: V ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pianolm.generation.config import GenerationConfig, StoppingCriteria
from pianolm.generation.engine.base import Engine
from pianolm.generation.engine.llama_weights import LlamaWeights, llama_of
from pianolm.generation.engine.numpy_engine import NumpyEngine
from pianolm.generation.repetition import Repetition
from pianolm.generation.sampling import Sampler, TokenOrder
from pianolm.generation.state import GenerationState, visible_ids
from pianolm.lm.llama import Llama
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.grammar_table import Phase
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Kind

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

BATCH_SIZE = {"cpu": 16, "cuda": 32}
"""Maximum number of pieces generated at once; the rest is queued."""


@dataclass(frozen=True)
class FixedTempo:
    """One tempo for all new beats.

    Attributes:
        tokens: For each tuning the tempo token nearest to the tempo asked for, by ratio.
        tuning: Number of the tuning with the nearest tempo of all.
        beat_sec: Exact length of a beat.
    """

    tokens: list[int]
    tuning: int
    beat_sec: float

    @classmethod
    def from_bpm(cls, bpm: float, tempo: TempoBins, first_tempo: int) -> FixedTempo:
        """A tempo in BPM, given the first tempo id."""
        distance = np.abs(np.log(tempo.bpm_of_tuning / bpm))
        tuning = int(distance.min(axis=1).argmin())
        return cls((first_tempo + distance.argmin(axis=1)).tolist(), tuning, 60 / float(bpm))


class Generator:
    """A model prepared for generation: its weights as an engine needs them, and the grammar.

    Each piece draws one random number per sampled token from its own generator. On a CPU each piece is computed by
    itself, so the other pieces change no bit of it. On a GPU the last bits of logits depend on the number of pieces,
    which may, rarely, change a sample.

    Args:
        model: A Llama over the grammar's vocabulary. The weights of a network are read now.
        grammar: Decides which tokens may come next.
        tempo: Converts tempo tokens to beat lengths.
        strikes_V: Whether each code strikes a note, which `repeat` needs with `ties=repeat`; None: all count as such.

    Attributes:
        context: Tokens that the model sees at most.
        order: Order of the ids in which engines compute logits.
        make_engine: Makes an engine with caches for a given number of pieces.

    Raises:
        UserError: The model has a feature that the engines do not support.
    """

    def __init__(
        self,
        model: LlamaForCausalLM | Llama,
        grammar: Grammar,
        tempo: TempoBins,
        strikes_V: NDArray[np.bool_] | None = None,
    ) -> None:
        self.grammar = grammar
        self.order = TokenOrder(grammar, tempo)
        self.make_engine: Callable[[int], Engine]
        if isinstance(model, Llama) or model.device.type == "cpu":
            weights = LlamaWeights(model if isinstance(model, Llama) else llama_of(model), self.order.ids)
            self.context, self._batch_size = weights.context, BATCH_SIZE["cpu"]
            self.make_engine = lambda rows: NumpyEngine(weights, rows)
        else:
            from pianolm.generation.engine.torch_engine import TorchEngine  # imports torch, as the model has

            self.context = int(model.config.max_position_embeddings)
            self._batch_size = BATCH_SIZE.get(model.device.type, 1)
            self.make_engine = lambda rows: TorchEngine(model, self.order.ids, rows)
        self._advance = lru_cache(maxsize=1 << 16)(grammar.advance)
        self._tempo, self._strikes_V = tempo, strikes_V
        self._first_tempo = grammar.vocabulary.offset(Kind.TEMPO)
        self._tunings = grammar.vocabulary.ids(Kind.TUNING)
        self._beat_sec: list[list[float]] = (60.0 / tempo.bpm_of_tuning).tolist()

    def refill(self, engine: Engine, row: int, ids: Sequence[int], beat_starts: Sequence[int]) -> None:
        """Fills the cache of a row again with the end of a piece, behind its tuning: see `window_start`."""
        engine.clear(row)
        engine.extend(row, visible_ids(self.grammar.vocabulary, ids, beat_starts, self.context))

    def generate(self, states: Sequence[GenerationState], config: GenerationConfig) -> Iterator[int]:
        """Generates pieces until all are finished; every sampled token is one that the grammar allows.

        The first new token of a piece begins a new beat, unless the piece still needs a tuning, which then comes first.
        A piece ends where the model samples EOS, or with an EOS that is put in where the stopping criteria are met.
        When the context is full, the cache is filled again with the last whole beats.

        Args:
            states: The pieces; changed in place.
            config: Sampling and length.

        Yields:
            The index of a piece each time it has completed a new beat.
        """
        sampler, stopping = Sampler(self.order, config), config.stopping
        fixed_tempo, repetition = self._fixed_tempo(config), self._repetition(config)
        for state in states:
            self._append_forced(state, stopping, fixed_tempo)
        n_rows = min(len(states), self._batch_size)
        engine = self.make_engine(n_rows + 1)  # the last row keeps a prompt, which its pieces copy
        queue = deque(index for index, state in enumerate(states) if not state.finished)
        active, prompt = dict[int, int](), list[int]()
        yield from (index for index, state in enumerate(states) if state.finished)
        while queue or active:
            for row in [row for row in range(n_rows) if row not in active][: len(queue)]:
                index = queue.popleft()
                prompt = self._start(engine, row, n_rows, states[index], prompt)
                active[row] = index
            n_new: dict[int, int] = {}
            sampled = {row: states[index] for row, index in active.items()}
            tokens = self._sample(engine, sampled, sampler, repetition)
            for row, token in tokens.items():
                index, state = active[row], sampled[row]
                n_before = len(state.ids)
                if self._append(state, token, stopping, fixed_tempo):
                    yield index
                if self._append_forced(state, stopping, fixed_tempo):
                    yield index
                n_new[row] = len(state.ids) - n_before
                if state.finished:
                    del active[row], n_new[row]
            self._read(engine, {row: states[index] for row, index in active.items()}, n_new)

    def _fixed_tempo(self, config: GenerationConfig) -> FixedTempo | None:
        if config.tempo_bpm is None:
            return None
        return FixedTempo.from_bpm(config.tempo_bpm, self._tempo, self._first_tempo)

    def _repetition(self, config: GenerationConfig) -> Repetition | None:
        if not config.repeat:
            return None
        return Repetition(self.grammar, self.order, self._strikes_V, config.repeat)

    def _start(
        self, engine: Engine, row: int, prompt_row: int, state: GenerationState, prompt: list[int]
    ) -> list[int]:
        """Puts the tokens of a new piece into a row; returns the prompt that the prompt row holds then.

        Args:
            engine: Holds the caches.
            row: Row of the piece.
            prompt_row: Row that keeps the cache of a prompt.
            state: The piece.
            prompt: What the prompt row holds.
        """
        if state.ids != prompt:
            engine.clear(prompt_row)
            engine.extend(prompt_row, state.visible())
        engine.copy(prompt_row, row)
        return list(state.ids)

    def _sample(
        self,
        engine: Engine,
        states: Mapping[int, GenerationState],
        sampler: Sampler,
        repetition: Repetition | None,
    ) -> dict[int, int]:
        """The next token of each piece, by row. Logits of rows with the same range are computed together."""
        candidates = {row: state.candidates(self.order, sampler.may_end) for row, state in states.items()}
        rows_by_range: dict[tuple[int, int], list[int]] = {}
        for row, found in candidates.items():
            rows_by_range.setdefault((found.low, found.high), []).append(row)
        tokens = {}
        for (low, high), rows in rows_by_range.items():
            for row, logits_R in zip(rows, engine.logits(rows, low, high), strict=True):
                state = states[row]
                if repetition is not None:
                    state.heard.read(state.ids)
                    repetition.prefer(logits_R, candidates[row], state.heard, state.grammar_state)
                state.tilt(logits_R, candidates[row])
                tokens[row] = sampler.sample(logits_R, candidates[row], state.rng.random())
        return {row: tokens[row] for row in states}

    def _append(
        self,
        state: GenerationState,
        token: int,
        stopping: StoppingCriteria,
        fixed_tempo: FixedTempo | None,
    ) -> bool:
        """Appends a token, or EOS where it would begin a beat too many; returns whether a new beat is complete."""
        tempo_bin = token - self._first_tempo
        is_tempo = 0 <= tempo_bin < len(self._beat_sec[0])
        ends = is_tempo and stopping.is_met(state.new_beats, state.new_seconds)
        if (taken := state.taken(token, ends)) != token:
            token, is_tempo, is_complete = taken, False, False
        elif ends:
            token, is_tempo, is_complete = self.grammar.vocabulary.eos, False, state.new_beats > 0
        else:
            is_complete = is_tempo and state.new_beats > 0
        if self._tunings.start <= token < self._tunings.stop:
            token = token if fixed_tempo is None else self._tunings.start + fixed_tempo.tuning
            state.tuning = token - self._tunings.start
        elif is_tempo:
            token = token if fixed_tempo is None else fixed_tempo.tokens[state.tuning]
            state.beat_starts.append(len(state.ids))
            state.new_beats += 1
            state.new_seconds += (
                self._beat_sec[state.tuning][tempo_bin] if fixed_tempo is None else fixed_tempo.beat_sec
            )
        advance = self._advance if state.grammar is self.grammar else state.grammar.advance
        state.grammar_state = advance(state.grammar_state, token)
        state.ids.append(token)
        state.appended(token)
        state.finished = state.grammar_state.phase == Phase.ENDED
        return is_complete or state.finished

    def _append_forced(
        self, state: GenerationState, stopping: StoppingCriteria, fixed_tempo: FixedTempo | None
    ) -> bool:
        """Appends the tokens that follow from those before; returns whether they end the piece."""
        goes_on = not state.finished
        while not state.finished and (token := state.forced(self.order)) is not None:
            self._append(state, token, stopping, fixed_tempo)
        return goes_on and state.finished

    def _read(self, engine: Engine, states: Mapping[int, GenerationState], n_new: Mapping[int, int]) -> None:
        """Runs the model over the last tokens of each piece, by row."""
        full = [row for row in states if engine.lengths[row] + n_new[row] > self.context]
        for row in full:
            engine.clear(row)
            engine.extend(row, states[row].visible())
        engine.read({row: states[row].ids[-n_new[row] :] for row in states if row not in full})
