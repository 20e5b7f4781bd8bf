"""A piece while it is generated, and which of its tokens the model sees.

Shapes: T tokens of a piece.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.generation.repetition import HeardBeats
from pianolm.generation.sampling import Array, Candidates, TokenOrder
from pianolm.music.bars import DEFAULT_BAR_BEATS
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.vocabulary import Kind, Vocabulary


class GenerationState:
    """One piece while it is generated: its tokens, the grammar's state and its own random numbers.

    Args:
        grammar: Of the tokens.
        prompt: [T] a well-formed beginning of a piece; an EOS at its end is dropped.
        seed: Of the random numbers of this piece.
        context: Tokens that the model sees at most; at least the prompt's last beat must fit.
        name: How error messages call the prompt.
        bar_beats: Length of the bars where tokens do not state positions in bars.

    Attributes:
        grammar: Of the tokens.
        context: Tokens of the piece that the model sees at most.
        ids: All tokens so far.
        prompt_tokens: How many of them are the prompt's.
        prompt_beats: Beats of the prompt.
        beat_starts: Index in `ids` of each beat's tempo token.
        tuning: Tuning of the tempo scale, 0 where none is stated.
        grammar_state: The grammar's state after the last token.
        heard: The beats so far, which `repeat` reads.
        rng: Random numbers of this piece.
        new_beats: Beats begun after the prompt.
        new_seconds: How long these last.
        finished: Whether the last token is EOS.

    Raises:
        UserError: The prompt is longer than the context and not even its last beat fits.
    """

    def __init__(
        self,
        grammar: Grammar,
        prompt: NDArray[np.int64],
        seed: int,
        context: int,
        name: str = "prompt",
        bar_beats: int = DEFAULT_BAR_BEATS,
    ) -> None:
        self.grammar, self.context = grammar, context
        self.ids: list[int] = prompt.tolist()
        if self.ids and self.ids[-1] == grammar.vocabulary.eos:
            self.ids.pop()
        self.prompt_tokens = len(self.ids)
        tuning = grammar.vocabulary.tuning_id(self.ids)
        self.tuning = tuning[0] - grammar.vocabulary.offset(Kind.TUNING) if tuning else 0
        kinds = grammar.kind_of[self.ids] if self.ids else np.zeros(0, np.uint8)
        self.beat_starts: list[int] = np.flatnonzero(kinds == Kind.TEMPO).tolist()
        self.prompt_beats = len(self.beat_starts)
        _check_last_beat(self.prompt_tokens, self.beat_starts, context, name)
        self.grammar_state = grammar.start()
        # The last beat alone determines the state, except where ties refer to the notes of the beats before it.
        first = self.beat_starts[-1] if self.beat_starts and grammar.ties == "repeat" else 0
        for token in self.ids[first:]:
            self.grammar_state = grammar.after(self.grammar_state, token)
        self.heard = HeardBeats(grammar, bar_beats)
        self.rng = np.random.default_rng(seed)
        self.new_beats, self.new_seconds, self.finished = 0, 0.0, False

    def candidates(self, order: TokenOrder, may_end: bool) -> Candidates:
        """The ids that may be sampled next; the first new token begins a beat, unless a tuning must come first."""
        is_first = not self.new_beats and self.grammar_state.between_cells
        candidates = order.tempo if is_first else order.candidates(self.grammar_state)
        return candidates if may_end else order.without_end(candidates)

    def tilt(self, logits_R: Array, candidates: Candidates) -> None:
        """Changes the logits of candidates in place, as `Repetition.prefer` does; here not at all."""

    def taken(self, token: int, ends: bool) -> int:
        """The token to take for a sampled one; `ends`: it is a tempo in whose place the piece ends."""
        return token

    def appended(self, token: int) -> None:
        """Called with each new token when `ids` and `grammar_state` have it."""

    def forced(self, order: TokenOrder) -> int | None:
        """The token that follows from those before: duration bins of explicit ties and the pitches of these."""
        if self.grammar.ties != "explicit" or not self.new_beats:
            return None
        return order.only_candidate(self.grammar_state)

    def visible(self) -> list[int]:
        """The tokens that the model sees when the cache is filled again, behind the tuning; see `window_start`."""
        return visible_ids(self.grammar.vocabulary, self.ids, self.beat_starts, self.context)


def visible_ids(
    vocabulary: Vocabulary, ids: Sequence[int], beat_starts: Sequence[int], context: int
) -> list[int]:
    """The end of a piece behind its tuning: see `window_start`."""
    start = window_start(len(ids), beat_starts, context)
    return [*(vocabulary.tuning_id(ids) if start else []), *ids[start:]]


def window_start(n_tokens: int, beat_starts: Sequence[int], context: int) -> int:
    """Index of the first token that the model sees when the cache is filled again.

    A piece that fits is seen from its beginning. Of a longer one the model sees whole beats that fill at least half the
    context. Where beats are too long for that, it sees the beats that fit, and where not even the last beat fits, the
    last half context of tokens.

    Args:
        n_tokens: Length of the piece so far.
        beat_starts: Indices at which its beats begin.
        context: Tokens that the model sees at most.
    """
    if n_tokens <= context:
        return 0
    fitting = [start for start in beat_starts if n_tokens - start < context]
    if not fitting:
        return n_tokens - context // 2
    half_full = [start for start in fitting if n_tokens - start >= context // 2]
    return half_full[-1] if half_full else fitting[0]


def _check_last_beat(n_tokens: int, beat_starts: Sequence[int], context: int, name: str) -> None:
    last_beat = n_tokens - (beat_starts[-1] if beat_starts else 0)
    if n_tokens > context and last_beat >= context:
        raise UserError(
            f"{name}: its last beat has {last_beat} tokens, but the model's context is {context} and must hold at "
            "least one whole beat; give a prompt with fewer notes in a beat"
        )
