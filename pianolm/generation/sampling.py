"""Sampling of the next token among those that the grammar allows, from one uniform random number.

Shapes: V ids, R ids in a range of the token order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.generation.config import SAMPLED_KINDS, GenerationConfig, SamplingRule
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.grammar_state import Part, State
from pianolm.tokenizer.grammar_table import BETWEEN_CELLS
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Kind

Array = NDArray[np.float32]

_BLOCK = 64
_GREEDY_BELOW = 1e-6
"""Temperatures below this are 0: the quotient would overflow."""

_KIND_ORDER = (
    *(Kind.L1, Kind.L2, Kind.L3, Kind.L4),
    *(Kind.VELOCITY, Kind.BAR, Kind.DURATION, Kind.EOS, Kind.PITCH, Kind.TEMPO),
    *(Kind.TUNING, Kind.BOS, Kind.PAD),
)
"""Order of the kinds in which the kinds that are allowed together in a state are neighbours."""


class Candidates(NamedTuple):
    """The ids that may come next, as a range of the token order.

    Attributes:
        low: First index of the range.
        high: One past its last index.
        forbidden: Indices within the range, counted from `low`, that may not come.
    """

    low: int
    high: int
    forbidden: NDArray[np.intp]


class TokenOrder:
    """An order of the ids in which the candidates of each state are neighbours.

    An engine computes the logits of a range of this order only, which saves most of the output layer's work.

    Args:
        grammar: Decides which ids may come.
        tempo: Bins of the tempo tokens. Those that a beat grid does not allow never come; None allows all.

    Attributes:
        ids: [V] the ids in this order; ids that never follow another token come last.
        index_of: [V] the index of each id in this order.
        tempo: The tempo tokens, as candidates.
        end: Index of EOS.
    """

    def __init__(self, grammar: Grammar, tempo: TempoBins | None = None) -> None:
        vocabulary, self._grammar = grammar.vocabulary, grammar
        kinds = [kind for kind in _KIND_ORDER if kind in grammar.kinds]
        ids_by_kind = [np.arange(vocabulary.size)[vocabulary.ids(kind)] for kind in kinds]
        unused = np.flatnonzero(~np.isin(grammar.kind_of, [int(kind) for kind in kinds]))
        self.ids = np.concatenate([*ids_by_kind, unused])
        self.index_of: list[int] = np.argsort(self.ids).tolist()
        self._can_come = np.ones(vocabulary.size, bool)
        if tempo is not None:
            self._can_come[vocabulary.ids(Kind.TEMPO)] = tempo.in_grid
        self.tempo = self.among(grammar.kind_of == Kind.TEMPO)
        self.end = int(np.flatnonzero(self.ids == vocabulary.eos)[0])
        self._cached_candidates = lru_cache(maxsize=1024)(self._find_candidates)

    def range_of(self, kinds: tuple[Kind, ...]) -> tuple[int, int]:
        """First index and one past the last index of neighbouring kinds; (0, 0) where they have no ids."""
        indices = np.flatnonzero(np.isin(self._grammar.kind_of[self.ids], [int(kind) for kind in kinds]))
        return (int(indices[0]), int(indices[-1]) + 1) if indices.size else (0, 0)

    def candidates(self, state: State) -> Candidates:
        """The candidates in a state before EOS."""
        candidates = self._cached_candidates(self._grammar.mask_key(state))
        if not state.ties.tied or state.phase not in BETWEEN_CELLS:
            return candidates
        taken = np.flatnonzero(
            self._grammar.tied_pitch_ids(state)[self.ids[candidates.low : candidates.high]]
        )
        return candidates._replace(forbidden=np.concatenate([candidates.forbidden, taken]))

    def without_end(self, candidates: Candidates) -> Candidates:
        """The candidates without EOS."""
        if not candidates.low <= self.end < candidates.high:
            return candidates
        forbidden = np.append(candidates.forbidden, self.end - candidates.low)
        return candidates._replace(forbidden=forbidden)

    def only_candidate(self, state: State) -> int | None:
        """The id that must come next in a state before EOS; None where there are several candidates."""
        candidates = self.candidates(state)
        return int(self.ids[candidates.low]) if candidates.high == candidates.low + 1 else None

    def _find_candidates(self, state: State) -> Candidates:
        given = [tempo for tempo, _ in state.fill.grid if state.fill.part == Part.MIDDLE]
        return self.among(self._grammar.allowed(state), given)

    def among(self, allowed_V: NDArray[np.bool_], given: Sequence[int] = ()) -> Candidates:
        """Those of some ids that can come; tempi that a gap gives can in any case."""
        can_come = self._can_come.copy()
        can_come[list(given)] = True
        allowed = (allowed_V & can_come)[self.ids]
        indices = np.flatnonzero(allowed)
        low, high = int(indices[0]), int(indices[-1]) + 1
        return Candidates(low, high, np.flatnonzero(~allowed[low:high]))


class Sampler:
    """Samples ids with the rules of a configuration.

    Args:
        order: The order of the ids in which logits are given.
        config: Its general rule, and the rules of single kinds of token.

    Attributes:
        may_end: Whether EOS may be sampled.
    """

    def __init__(self, order: TokenOrder, config: GenerationConfig) -> None:
        self._rule, self.may_end = config.rule, config.end == "model"
        self._ids: list[int] = order.ids.tolist()
        self._rules_by_range = [
            (config.rule_of(kind), *order.range_of(SAMPLED_KINDS[kind])) for kind in config.by_kind
        ]

    def sample(self, logits_R: Array, candidates: Candidates, uniform: float) -> int:
        """The next id.

        Args:
            logits_R: Logits of the indices `candidates.low` to `candidates.high`; changed in place.
            candidates: The ids that may come.
            uniform: A number from [0, 1), the only source of randomness.

        Raises:
            UserError: A logit is not a number.
        """
        if candidates.forbidden.size:
            logits_R[candidates.forbidden] = -np.inf
        weight_R = _weights(logits_R, self._rule)
        target = uniform * _total(weight_R)
        index = _index_at(weight_R, target)
        for rule, low, high in self._rules_by_range:
            if low <= candidates.low + index < high:
                kind = slice(max(low - candidates.low, 0), min(high, candidates.high) - candidates.low)
                # given the kind, the rest of the target is uniform over the weight of the kind
                rest = target - _total(weight_R[: kind.start])
                kind_weight_R = _weights(logits_R[kind], rule)
                kind_target = rest / _total(weight_R[kind]) * _total(kind_weight_R)
                index = kind.start + _index_at(kind_weight_R, kind_target)
                break
        return self._ids[candidates.low + index]


def _weights(logits_R: Array, rule: SamplingRule) -> Array:
    """[R] unnormalised probabilities by a rule, 0 where a token is cut off."""
    highest = float(logits_R.max())
    if not math.isfinite(highest):
        raise UserError(
            "the model's logits are not finite numbers, so no token can be sampled; its training has diverged"
        )
    if rule.temperature < _GREEDY_BELOW:
        return np.asarray(np.arange(logits_R.size) == logits_R.argmax(), np.float32)
    weight_R = logits_R - np.float32(highest)
    weight_R /= np.float32(rule.temperature)
    np.exp(weight_R, out=weight_R)
    threshold = _threshold(weight_R, rule)
    if threshold > 0:
        weight_R *= weight_R >= threshold
    return weight_R


def _threshold(weight_R: Array, rule: SamplingRule) -> float:
    """The least weight that is kept, where the most likely token has weight 1."""
    threshold, kept_R = 0.0, weight_R
    if 0 < rule.top_k < weight_R.size:
        threshold = float(np.partition(weight_R, -rule.top_k)[-rule.top_k])
        kept_R = weight_R[weight_R >= threshold]
    if rule.top_p < 1:
        total = _total(kept_R)
        # weights below this sum to less than 1 − p even together, so they need not be sorted
        likely_R = kept_R[kept_R >= (1 - rule.top_p) * total / kept_R.size]
        likely_R.sort()
        threshold = float(likely_R[likely_R.size - 1 - _index_at(likely_R[::-1], rule.top_p * total)])
    return max(threshold, rule.min_p)


def _total(weight_R: Array) -> float:
    return float(np.add.reduce(weight_R, dtype=np.float64))


def _index_at(weight_R: Array, target: float) -> int:
    """The first index at which the cumulative sum exceeds a target; the last index with any weight if none does.

    Blocks are summed first: unlike a cumulative sum over all weights, their sums do not depend on each other.
    """
    block_ends = np.add.reduceat(weight_R, _block_starts(weight_R.size), dtype=np.float64).cumsum()
    block = min(
        int(block_ends.searchsorted(target, side="right")), int(block_ends.searchsorted(block_ends[-1]))
    )
    first = block * _BLOCK
    cumulative = weight_R[first : first + _BLOCK].cumsum(dtype=np.float64)
    rest = target - (float(block_ends[block - 1]) if block else 0.0)
    return first + min(
        int(cumulative.searchsorted(rest, side="right")), int(cumulative.searchsorted(cumulative[-1]))
    )


@lru_cache
def _block_starts(size: int) -> NDArray[np.intp]:
    return np.arange(0, size, _BLOCK)
