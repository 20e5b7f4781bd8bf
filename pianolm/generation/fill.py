"""Filling of gaps: what the generator may and must take while it writes the middle of a fill sequence.

The grammar gives the middle the beats of the gap (`pianolm.tokenizer.fill`). A plan adds what follows from the piece:
cells of notes that stay are put in where they belong, a pitch that sounds on behind the gap is named in the last beat
and sounds to its end, and where only a register is written anew, no other pitch is sampled.

Shapes: V ids, T tokens.
"""

from __future__ import annotations

from collections import deque
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.generation.continuation import seeds_of
from pianolm.generation.repetition import HeardBeats
from pianolm.generation.results import GeneratedPiece
from pianolm.generation.sampling import Candidates, TokenOrder
from pianolm.generation.state import GenerationState
from pianolm.music.bars import DEFAULT_BAR_BEATS, bar_length
from pianolm.music.gap import Gap, GappedPiece
from pianolm.music.piece import Piece
from pianolm.tokenizer.fill import FillParts, FillWriter, Ids, first_beats, last_beats
from pianolm.tokenizer.grammar_state import State
from pianolm.tokenizer.grammar_table import BETWEEN_CELLS, Phase
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import EIGHTHS_BY_KIND, FILL_MARKS, Kind

_CODES, _VELOCITY = int(Phase.CODES), int(Phase.VELOCITY)
_MARGIN = 1.5
"""Room that is kept for new beats, relative to the beats around the gap."""


class FillPlan:
    """What of the middle of one gap is given.

    Args:
        tokenizer: Its layout has fill sequences.
        gapped: The piece with its gap.
        order: The order of the ids in which logits are given, of `tokenizer.fill_grammar`.
        context: Tokens that the model sees at most.
        name: How error messages call the gap.

    Attributes:
        ids: [T] the fill sequence of the piece up to the mark of the middle.
        prefix: Its opening and prefix: the beginning of the plain sequence.
        human: Tokens of the gap's beats, as the piece has them.

    Raises:
        UserError: The gap takes more than a third of the context before a note of it is written.
    """

    def __init__(
        self,
        tokenizer: PianoTokenizer,
        gapped: GappedPiece,
        order: TokenOrder,
        context: int,
        name: str = "beats",
    ) -> None:
        self.grammar, self._order, self._vocabulary = tokenizer.fill_grammar, order, tokenizer.vocabulary
        self.context = context
        self._gap, self._tails = gapped.gap, frozenset(gapped.tails)
        self._writer, piece = FillWriter(tokenizer.grammar), gapped.piece
        plain = tokenizer.encode_cells(piece.cells, piece.beats_sec, piece.bar_starts)
        self._parts = self._writer.parts(plain, gapped.gap)
        sequence = self._writer.sequence(self._parts)
        self.ids = sequence.ids[: sequence.middle]
        self.prefix: list[int] = [*self._parts.opening.tolist(), *self._parts.prefix.tolist()]
        self.human: list[int] = self._parts.middle.tolist()
        self.bar_beats = bar_length(piece.bar_starts) or DEFAULT_BAR_BEATS
        if 3 * self._parts.gap.size > context:
            beats = gapped.gap.n_beats * context // (3 * self._parts.gap.size)
            raise UserError(
                f"{name}: a gap of {gapped.gap.n_beats} beats found, which takes {self._parts.gap.size} tokens before "
                f"a note of it is written; the model's context is {context}: fill about {beats} beats at a time"
            )
        self._kept = self._kept_cells(tokenizer, gapped)
        self._silent = tokenizer.silent_cell
        pitches = self._vocabulary.ids(Kind.PITCH)
        self._first_pitch = pitches.start
        self._is_tempo = self._vocabulary.kind_of == Kind.TEMPO
        outside = [p for p in range(128) if not gapped.gap.lowest <= p <= gapped.gap.highest]
        self._outside = np.array([order.index_of[pitches.start + p] for p in outside], np.int64)
        self._ends = np.flatnonzero(~tokenizer.codebook.tie_codes.sounds_to_end[order.ids])
        self._eighths = EIGHTHS_BY_KIND[tokenizer.vocabulary.kind_of[order.ids]]
        self._expected = self._tokens_per_beat()

    @staticmethod
    def _kept_cells(tokenizer: PianoTokenizer, gapped: GappedPiece) -> list[dict[int, list[int]]]:
        """For each beat of the gap the tokens behind the pitch of each cell of a note that stays."""
        kept: list[dict[int, list[int]]] = [{} for _ in range(gapped.gap.n_beats)]
        cells = gapped.kept
        for beat, pitch, tokens in zip(
            cells.beat.tolist(), cells.pitch.tolist(), tokenizer.cell_ids(cells), strict=True
        ):
            kept[beat][pitch] = tokens
        return kept

    def _tokens_per_beat(self) -> float:
        """Of the four beats on either side, as far as there are some."""
        kinds = [self._vocabulary.kind_of[part] for part in (self._parts.prefix, self._parts.suffix)]
        at = [np.flatnonzero(of == Kind.TEMPO) for of in kinds]
        tokens = kinds[0].size - at[0][-4:].min(initial=kinds[0].size) + at[1][:5].max(initial=0)
        return _MARGIN * float(tokens) / max(at[0][-4:].size + max(at[1][:5].size - 1, 0), 1)

    def candidates(self, state: FillState) -> Candidates:
        """The ids that may be sampled next."""
        now = state.grammar_state
        found = self._order.candidates(now)
        if now.phase in BETWEEN_CELLS and now.fill.bar < 0:
            if self._is_last(now) and state.new_beats:
                # tempi end the beat, too: a model knows them from all beats, EOS from the ends of pieces and gaps alone
                found = self._order.among(self.grammar.allowed(now) | self._is_tempo)
            return _without(found, self._outside)
        if _CODES <= now.phase < _VELOCITY and self._is_last(now) and now.pitch in self._tails:
            in_range = self._ends[(self._ends >= found.low) & (self._ends < found.high)]
            completes = self._eighths[in_range] == 8 - (now.phase - _CODES)
            return _without(found, in_range[completes])
        return found

    def taken(self, state: FillState, token: int) -> int:
        """The token to take for a sampled one: the pitch that must come before it, if there is one."""
        now = state.grammar_state
        if now.phase not in BETWEEN_CELLS or now.fill.bar >= 0 or not state.new_beats:
            return token
        required = {*self._kept[state.beat], *(self._tails if self._is_last(now) else ())}
        pitch = token - self._first_pitch
        limit = pitch if 0 <= pitch < 128 else 128
        waiting = [p for p in required if now.last_pitch < p < limit and not now.ties.tied >> p & 1]
        return self._first_pitch + min(waiting) if waiting else token

    def forced(self, state: FillState) -> int | None:
        """The token that follows from what is there; None where one is to be sampled."""
        if state.given:
            return state.given.popleft()
        return self._order.only_candidate(state.grammar_state)

    def appended(self, state: FillState, token: int) -> None:
        """Notes a new token: behind the pitch of a cell that is kept, its codes are given."""
        now, pitch = state.grammar_state, token - self._first_pitch
        if now.phase != _CODES or not 0 <= pitch < 128:
            return
        if pitch in self._kept[state.beat]:
            state.given.extend(self._kept[state.beat][pitch])
        elif now.ties.pending and (state.beat == 0 or pitch in self._kept[state.beat - 1]):
            state.given.extend(self._silent)  # the note that stays ends on the beat line

    @staticmethod
    def _is_last(now: State) -> bool:
        return not now.fill.grid

    def past(self, most: int) -> list[int]:
        """As many of the last beats before the gap as have at most so many tokens, as in a plain sequence."""
        found: list[int] = last_beats(self._vocabulary, np.array(self.prefix, np.int64), most).tolist()
        return found

    def visible(self, state: FillState, context: int, reserve: int | None = None) -> list[int]:
        """The tokens that the model sees: the gap, and as much of both sides nearest to it as fits.

        Where little fits beside what is written, the beats of the middle that are complete count as prefix, and the gap
        as the rest. Without the beginning of the piece what is seen of it begins without ties, as in training.

        Args:
            state: The middle so far.
            context: Tokens that the model sees at most.
            reserve: Tokens kept free for what is to come; None for an estimate from the beats around the gap.
        """
        v, opening, middle = self._vocabulary, self._parts.opening, np.array(state.middle, np.int64)
        starts = [start - self.ids.size for start in state.beat_starts] or [0]
        for done in dict.fromkeys((0, state.beat)):
            told, written = self._told(done), middle[starts[done] :]
            expected = min(int(self._expected * (self._gap.n_beats - done)) + 16, context // 3)
            room = context - opening.size - told.size - written.size - len(FILL_MARKS) - 1
            room -= expected if reserve is None else reserve
            past = np.concatenate([self._parts.prefix, middle[: starts[done]]])
            if room >= context // 4:
                break
        behind = first_beats(v, self._parts.suffix, max(room // 2, room - past.size))
        before = last_beats(v, past, max(room - behind.size, 0))
        if before.size < past.size:
            opening = np.array(v.tuning_id(opening.tolist()), np.int64)
        if 0 < before.size < past.size:
            restarted = self._writer.restarted(np.concatenate([before, written]))
            before, written = np.split(restarted, [restarted.size - written.size])
        parts = FillParts(opening, told, behind, before, written, np.zeros(written.size, bool))
        seen: list[int] = self._writer.sequence(parts).ids[:-1].tolist()
        return seen if len(seen) < context else seen[-(context // 2) :]

    def _told(self, done: int) -> Ids:
        """Tokens of the gap without its first `done` beats."""
        gap = self._parts.gap
        tempo_at = np.flatnonzero(self._vocabulary.kind_of[gap] == Kind.TEMPO)
        return np.concatenate([gap[: tempo_at[0]], self._writer.restarted(gap[tempo_at[done] :])])


class FillState(GenerationState):
    """A middle while it is generated. `ids` is its fill sequence; `beat_starts` are those of the middle alone.

    Args:
        plan: What is given.
        seed: Of the random numbers.

    Attributes:
        given: Tokens that come next whatever the model says.
    """

    def __init__(self, plan: FillPlan, seed: int) -> None:
        self.plan, self.grammar, self.context = plan, plan.grammar, plan.context
        self.ids: list[int] = plan.ids.tolist()
        self.prompt_tokens, self.prompt_beats, self.beat_starts = len(self.ids), 0, []
        self.tuning = 0
        self.grammar_state = plan.grammar.start()
        for token in self.ids:
            self.grammar_state = plan.grammar.advance(self.grammar_state, token)
        self.heard = HeardBeats(plan.grammar, plan.bar_beats)
        self.heard.read(plan.prefix)
        self.heard.skip_to(len(self.ids))
        self.rng = np.random.default_rng(seed)
        self.new_beats, self.new_seconds, self.finished = 0, 0.0, False
        self.given: deque[int] = deque()

    def candidates(self, order: TokenOrder, may_end: bool) -> Candidates:
        """The ids that may be sampled next."""
        return self.plan.candidates(self)

    def taken(self, token: int, ends: bool) -> int:
        """The token to take for a sampled one: a pitch that must come before it, if there is one."""
        return self.plan.taken(self, token)

    def appended(self, token: int) -> None:
        """Puts the codes of a cell that stays next, when its pitch has come."""
        self.plan.appended(self, token)

    def forced(self, order: TokenOrder) -> int | None:
        """The token that follows from those before, or from the piece."""
        return self.plan.forced(self)

    def visible(self) -> list[int]:
        """The gap, and what of both sides fits."""
        return self.plan.visible(self, self.context)

    @property
    def beat(self) -> int:
        """Number of the middle's beat that has begun last, 0 before the first."""
        return max(self.new_beats - 1, 0)

    @property
    def middle(self) -> list[int]:
        """Its tokens so far, with EOS at the end of a finished one."""
        return self.ids[self.prompt_tokens :]


class Filling:
    """A gap of one piece: the states in which it is filled, and the pieces that finished states make.

    Args:
        tokenizer, order, context, name: See `FillPlan`.
        piece: The piece.
        gap: What of it is written anew.

    Raises:
        UserError: See `FillPlan`.
    """

    def __init__(
        self, tokenizer: PianoTokenizer, piece: Piece, gap: Gap, order: TokenOrder, context: int, name: str
    ) -> None:
        self._tokenizer, self._gapped, velocity = (
            tokenizer,
            GappedPiece.of(piece, gap),
            piece.notes["velocity"],
        )
        self._plan = FillPlan(tokenizer, self._gapped, order, context, name)
        is_constant = tokenizer.codec is None or np.unique(velocity).size == 1
        self._velocity = int(np.median(velocity)) if is_constant and velocity.size else None

    def states(self, pieces: int, seed: int) -> list[FillState]:
        """As many middles before their first token."""
        entropy = [seed, crc32(self._plan.ids.astype("<i8").tobytes())]
        return [FillState(self._plan, one) for one in seeds_of(entropy, pieces)]

    def finished(self, state: FillState, first_beat_seconds: float) -> GeneratedPiece:
        """The piece with a finished middle in its gap."""
        new = self._tokenizer.decode([*self._plan.prefix, *state.middle]).frame_notes
        return GeneratedPiece(
            ids=np.array(state.ids, np.int64),
            piece=self._gapped.filled(new, self._velocity),
            prompt_beats=self._gapped.gap.first,
            new_tokens=len(state.middle),
            first_beat_seconds=first_beat_seconds,
        )


def _without(found: Candidates, indices: NDArray[np.int64]) -> Candidates:
    """Candidates without some indices of the order."""
    inside = indices[(indices >= found.low) & (indices < found.high)]
    return (
        found._replace(forbidden=np.concatenate([found.forbidden, inside - found.low]))
        if inside.size
        else found
    )
