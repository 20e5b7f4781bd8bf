"""How the next token is drawn: among what the grammar allows, by one uniform number.

Shapes: V ids, R of them that lie side by side and may come next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.tokenizer.grammar import BETWEEN_CELLS, Grammar, State
from pianolm.tokenizer.vocabulary import CODE_KINDS, Kind

Array = NDArray[np.float32]

GROUPS: dict[str, tuple[Kind, ...]] = {
    "tempo": (Kind.TEMPO,),
    "pitch": (Kind.PITCH,),
    "pattern": CODE_KINDS,
    "velocity": (Kind.VELOCITY,),
    "bar": (Kind.BAR,),
}
"""Kinds of token that may have settings of their own."""

_BLOCK = 64
_GREEDY = 1e-6

_ORDER = (
    *(Kind.L1, Kind.L2, Kind.L3, Kind.L4),
    *(Kind.VELOCITY, Kind.BAR, Kind.AGE, Kind.EOS, Kind.PITCH, Kind.TEMPO),
    *(Kind.BOS, Kind.PAD),
)
"""Kinds so ordered that those which may come next in a state lie side by side; behind them lies what never comes."""


@dataclass(frozen=True)
class Rule:
    """Temperature and cuts. Of ids that are equally likely at a cut, all stay.

    Attributes:
        temperature: Divides the logits; 0 takes the most likely id.
        top_k: Keeps the k most likely ids; 0 keeps all.
        top_p: Keeps the most likely of these whose probabilities first reach p together.
        min_p: Keeps ids at least this fraction as likely as the most likely one.
    """

    temperature: float = 0.95
    top_k: int = 0
    top_p: float = 0.97
    min_p: float = 0.0

    def __post_init__(self) -> None:
        expected = {
            "temperature": (lambda value: 0 <= value < np.inf, "0 (most likely) or more"),
            "top_k": (lambda value: value >= 0 and value == int(value), "0 (off) or a whole number above"),
            "top_p": (lambda value: 0 < value <= 1, "more than 0 and at most 1"),
            "min_p": (lambda value: 0 <= value <= 1, "0 (off) to 1"),
        }
        for name, (fits, what) in expected.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not fits(value):
                raise UserError(f"{name}={value!r} found, expected {what}")


@dataclass(frozen=True)
class Sampling(Rule):
    """How tokens are drawn, if wanted otherwise for some kinds of them.

    Which *kind* comes next (another note, the next beat, the end) is always drawn by the general settings; which id of
    that kind, by the kind's own.

    Attributes:
        by_kind: Settings of `tempo`, `bar`, `pitch`, `pattern` and `velocity` tokens that differ from the general ones,
            such as `{"tempo": {"temperature": 0.7}}`.
    """

    by_kind: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {one.name for one in fields(Rule)}
        for kind, settings in self.by_kind.items():
            if kind not in GROUPS:
                raise UserError(f"by_kind: {kind!r} found, expected one of {', '.join(GROUPS)}")
            if not isinstance(settings, Mapping):
                raise UserError(
                    f"by_kind.{kind}={settings!r} found, expected settings such as {{temperature: 0.7}}"
                )
            unknown = sorted(set(settings) - known)
            if unknown:
                raise UserError(
                    f"by_kind.{kind}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}"
                )
            self.rule(kind)

    def rule(self, kind: str) -> Rule:
        """What holds for one kind."""
        general = Rule(self.temperature, self.top_k, self.top_p, self.min_p)
        try:
            return replace(general, **self.by_kind.get(kind, {}))  # type: ignore[arg-type]  # names are checked above
        except UserError as error:
            raise UserError(f"by_kind.{kind}: {error}") from error


class Choice(NamedTuple):
    """What may come next.

    Attributes:
        low: First place (see `Places`) that may come.
        high: One behind the last.
        forbidden: [..] places between them, counted from `low`, that may not.
    """

    low: int
    high: int
    forbidden: NDArray[np.intp]


class Places:
    """The ids in an order in which those that may come next lie side by side; an id's index in it is its place.

    Attributes:
        order: [V] ids.
        tempo: A tempo and nothing else.
    """

    def __init__(self, grammar: Grammar) -> None:
        vocabulary, self._grammar = grammar.vocabulary, grammar
        absent = {Kind.BAR: not grammar.bars, Kind.AGE: not grammar.ages}
        kinds = [kind for kind in _ORDER if not absent.get(kind, False)]
        comes = [np.arange(vocabulary.size)[vocabulary.ids(kind)] for kind in kinds]
        never = np.flatnonzero(~np.isin(grammar.kind_of, [int(kind) for kind in kinds]))
        self.order = np.concatenate([*comes, never])
        self.tempo = Choice(*self.span((Kind.TEMPO,)), np.zeros(0, np.intp))
        self._choice = lru_cache(maxsize=1024)(self._make_choice)

    def span(self, kinds: tuple[Kind, ...]) -> tuple[int, int]:
        """First place of some kinds that lie together, and the one behind their last; nothing where there are none."""
        places = np.flatnonzero(np.isin(self._grammar.kind_of[self.order], [int(kind) for kind in kinds]))
        return (int(places[0]), int(places[-1]) + 1) if places.size else (0, 0)

    def choice(self, state: State) -> Choice:
        """What may come next in a state that is not the end."""
        choice = self._choice(self._grammar.seen(state))
        if not state.told or state.phase not in BETWEEN_CELLS:
            return choice
        told = np.flatnonzero(self._grammar.told_ids(state)[self.order[choice.low : choice.high]])
        return choice._replace(forbidden=np.concatenate([choice.forbidden, told]))

    def only(self, state: State) -> int | None:
        """The id that must come next in a state that is not the end; None where several may."""
        choice = self.choice(state)
        return int(self.order[choice.low]) if choice.high == choice.low + 1 else None

    def _make_choice(self, state: State) -> Choice:
        allowed = self._grammar.allowed(state)[self.order]
        places = np.flatnonzero(allowed)
        low, high = int(places[0]), int(places[-1]) + 1
        return Choice(low, high, np.flatnonzero(~allowed[low:high]))


class Drawer:
    """Draws ids by one way of sampling."""

    def __init__(self, places: Places, sampling: Sampling) -> None:
        self._general = sampling
        self._ids: list[int] = places.order.tolist()
        self._own = [(sampling.rule(name), *places.span(GROUPS[name])) for name in sampling.by_kind]

    def draw(self, logits_R: Array, choice: Choice, uniform: float) -> int:
        """The next id.

        Args:
            logits_R: Of places `choice.low` to `choice.high`; changed.
            choice: What may come.
            uniform: From [0, 1); all that is left to chance.

        Raises:
            UserError: A logit is not a number.
        """
        if choice.forbidden.size:
            logits_R[choice.forbidden] = -np.inf
        weight_R = _weights(logits_R, self._general)
        target = uniform * _total(weight_R)
        place = _reach(weight_R, target)
        for rule, low, high in self._own:
            if low <= choice.low + place < high:
                kind = slice(max(low - choice.low, 0), min(high, choice.high) - choice.low)
                rest = target - _total(weight_R[: kind.start])  # uniform in what this kind has
                own_R = _weights(logits_R[kind], rule)
                place = kind.start + _reach(own_R, rest / _total(weight_R[kind]) * _total(own_R))
                break
        return self._ids[choice.low + place]


def _weights(logits_R: Array, rule: Rule) -> Array:
    """[R] what each place weighs by a rule, 0 where it is cut away."""
    highest = float(logits_R.max())
    if not math.isfinite(highest):
        raise UserError(
            "the model's logits are not numbers, so nothing can be drawn; its training has diverged"
        )
    if rule.temperature < _GREEDY:
        return np.asarray(np.arange(logits_R.size) == logits_R.argmax(), np.float32)
    weight_R = logits_R - np.float32(highest)
    weight_R /= np.float32(rule.temperature)
    np.exp(weight_R, out=weight_R)
    least = _least_weight(weight_R, rule)
    if least > 0:
        weight_R *= weight_R >= least
    return weight_R


def _least_weight(weight_R: Array, rule: Rule) -> float:
    """The weight from which on an id is kept, where the most likely one weighs 1."""
    least, kept_R = 0.0, weight_R
    if 0 < rule.top_k < weight_R.size:
        least = float(np.partition(weight_R, -rule.top_k)[-rule.top_k])
        kept_R = weight_R[weight_R >= least]
    if rule.top_p < 1:
        total = _total(kept_R)
        # What weighs less than this cannot reach more than 1 − p together: there is no need to sort it.
        likely_R = kept_R[kept_R >= (1 - rule.top_p) * total / kept_R.size]
        likely_R.sort()
        least = float(likely_R[likely_R.size - 1 - _reach(likely_R[::-1], rule.top_p * total)])
    return max(least, rule.min_p)


def _total(weight_R: Array) -> float:
    return float(np.add.reduce(weight_R, dtype=np.float64))


def _reach(weight_R: Array, target: float) -> int:
    """The place at which sums from the first weight on exceed a target; the last with any weight if none does.

    Sums of blocks first: running sums wait for each other, sums of blocks do not.
    """
    of_blocks = np.add.reduceat(weight_R, np.arange(0, weight_R.size, _BLOCK), dtype=np.float64).cumsum()
    block = min(int(of_blocks.searchsorted(target, side="right")), int(of_blocks.searchsorted(of_blocks[-1])))
    first = block * _BLOCK
    running = weight_R[first : first + _BLOCK].cumsum(dtype=np.float64)
    rest = target - (float(of_blocks[block - 1]) if block else 0.0)
    return first + min(int(running.searchsorted(rest, side="right")), int(running.searchsorted(running[-1])))
