"""Learning under the grammar: of which ids each target of a batch is one, told from the tokens around it.

Shapes: B rows, T inputs of a row, V ids, S sets of ids.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pianolm.tokenizer.grammar import Grammar, Phase, State
from pianolm.tokenizer.vocabulary import CODE_KINDS, EIGHTHS_OF_KIND, Kind

_ANY, _OPENED, _CODES, _VELOCITY, _TEMPO, _TEMPO_DUE, _BAR, _BETWEEN = 0, 1, 2, 10, 11, 12, 13, 14
"""Rows of the table of sets. Eight of `_CODES`, by the eighths filled; of `_BETWEEN` one a pitch floor from −1 on, and
behind them, where slots begin with ages, for each age it alone, each pitch alone, and for each age it or a bar."""


class LegalTargets(nn.Module):
    """Sets of ids that may stand at a target, by place.

    A window tells all of them but what sounds on from before it. Where that is told in slots (`held="codes"`, "ages"),
    a set may hold pitches that a slot has spoken of, and that of a bar at the end of a window whatever may follow a
    tempo. One that ends a cell may hold codes that leave it all silent. In a window that begins within a beat the
    targets up to the first pitch, age or tempo may be anything, and so may what follows an EOS. A pitch at the
    beginning of a window does not count as the first where it may be that of a slot.

    Args:
        grammar: Of the tokens; they must keep to it.
    """

    sets: Tensor

    def __init__(self, grammar: Grammar) -> None:
        super().__init__()
        states = [
            State(Phase.OPENED),
            *(State(Phase.CODES + filled, sounding=True) for filled in range(8)),
            State(Phase.VELOCITY),
            State(Phase.TEMPO),
            State(Phase.TEMPO, due=1),
            *(State(Phase.BEAT, floor) for floor in range(-1, grammar.vocabulary.pitch)),
        ]
        sets_SV = [np.ones(grammar.vocabulary.size, bool), *(grammar.allowed(state) for state in states)]
        due = sets_SV[_TEMPO_DUE] if grammar.rings is not None else False
        self._ages, vocabulary = grammar.ages, grammar.vocabulary
        if grammar.ages:
            due = due | (grammar.kind_of == Kind.AGE)
        sets_SV.insert(_BAR, sets_SV[_TEMPO] | due)
        self._age_alone = len(sets_SV)
        self._pitch_alone = self._age_alone + vocabulary.count(Kind.AGE)
        self._age_or_bar = self._pitch_alone + vocabulary.pitch
        self._first_age, self._first_pitch = vocabulary.offset(Kind.AGE), vocabulary.offset(Kind.PITCH)
        if grammar.ages:
            each_VV = np.eye(vocabulary.size, dtype=bool)
            ages_AV = each_VV[vocabulary.ids(Kind.AGE)]
            sets_SV += [
                *ages_AV,
                *each_VV[vocabulary.ids(Kind.PITCH)],
                *(ages_AV | (grammar.kind_of == Kind.BAR)),
            ]
        self.register_buffer("sets", torch.from_numpy(np.stack(sets_SV)), persistent=False)
        eighths = [EIGHTHS_OF_KIND.get(kind, 0) for kind in Kind]
        kind_of = torch.from_numpy(grammar.kind_of.astype(np.int64))
        self.register_buffer("_kind_of", kind_of, persistent=False)
        self.register_buffer("_eighths_of", torch.tensor(eighths)[kind_of], persistent=False)
        self.register_buffer("_rank_of", torch.from_numpy(grammar.rank_of.astype(np.int64)), persistent=False)
        is_code = torch.isin(kind_of, torch.tensor([int(kind) for kind in CODE_KINDS]))
        self.register_buffer("_is_code", is_code, persistent=False)
        self._bars = grammar.bars

    def forward(self, input_ids_BT: Tensor, labels_BT: Tensor, position_ids_BT: Tensor | None) -> Tensor:
        """[B, T] row of `sets` of every target.

        Args:
            input_ids_BT: Inputs.
            labels_BT: Targets, shifted; negative ones do not count, and nor does their set.
            position_ids_BT: Positions that begin at 0 in every window, or None where a row is one window.
        """
        kind_of, eighths_of, is_code = (self.get_buffer(n) for n in ("_kind_of", "_eighths_of", "_is_code"))
        kind_BT = kind_of[input_ids_BT]
        place_BT = torch.arange(kind_BT.shape[1], device=kind_BT.device).expand_as(kind_BT)
        starts_BT = place_BT == 0 if position_ids_BT is None else position_ids_BT == 0
        start_BT = _latest(place_BT, starts_BT)
        is_pitch_BT, is_tempo_BT = kind_BT == Kind.PITCH, kind_BT == Kind.TEMPO
        opens_BT = is_pitch_BT | is_tempo_BT | (kind_BT == Kind.BOS)
        floor_of_BT = torch.where(is_pitch_BT, self.get_buffer("_rank_of")[input_ids_BT], -1)
        if self._ages:
            is_age_BT = kind_BT == Kind.AGE
            opens_BT = (opens_BT & ~(is_pitch_BT & starts_BT)) | is_age_BT
            of_slot_BT = is_age_BT.roll(1, dims=1) & ~starts_BT
            floor_of_BT = torch.where(of_slot_BT, -1, floor_of_BT)
        opened_BT = _latest(place_BT, opens_BT)
        floor_BT = floor_of_BT.gather(1, opened_BT.clamp(min=0))
        eighths_BT = eighths_of[input_ids_BT]
        so_far_BT = eighths_BT.cumsum(1)
        filled_BT = (so_far_BT - so_far_BT.gather(1, opened_BT.clamp(min=0))) % 8  # what opens fills none
        target_BT = labels_BT.clamp(min=0)
        next_is_code_BT = is_code[target_BT]
        to_come_BT = torch.where(next_is_code_BT, _CODES, _BETWEEN + 1 + floor_BT)
        done_BT = torch.where(kind_of[target_BT] == Kind.VELOCITY, _VELOCITY, to_come_BT)
        found_BT = torch.where(
            is_code[input_ids_BT], torch.where(filled_BT > 0, _CODES + filled_BT, done_BT), to_come_BT
        )
        if self._bars:
            is_bar_BT = kind_of[target_BT] == Kind.BAR
            opens_slot_BT = kind_of[target_BT] == Kind.AGE if self._ages else next_is_code_BT
            due_BT = opens_slot_BT | is_bar_BT & opens_slot_BT.roll(-1, dims=1)
            row_due_BT: Tensor | int = _TEMPO_DUE
            if self._ages:
                age_BT = torch.where(is_bar_BT, target_BT.roll(-1, dims=1), target_BT) - self._first_age
                row_due_BT = self._age_or_bar + age_BT
            tempo_BT = torch.where(due_BT, row_due_BT, _TEMPO)
            ends_BT = starts_BT.roll(-1, dims=1) | (place_BT == place_BT[:, -1:])
            tempo_BT = torch.where(is_bar_BT & ends_BT, _BAR, tempo_BT)
            found_BT = torch.where(is_tempo_BT, tempo_BT, found_BT)
        found_BT = torch.where(is_pitch_BT, _CODES, found_BT)
        found_BT = torch.where(kind_BT == Kind.BOS, _OPENED, found_BT)
        found_BT = torch.where((opened_BT < start_BT) | (kind_BT == Kind.EOS), _ANY, found_BT)
        if self._ages:
            alone_BT = kind_of[target_BT] == Kind.AGE
            alone_BT = alone_BT & ~is_tempo_BT if self._bars else alone_BT  # a bar might come as well
            found_BT = torch.where(alone_BT, self._age_alone + target_BT - self._first_age, found_BT)
            named_BT = is_age_BT & (kind_of[target_BT] == Kind.PITCH)
            found_BT = torch.where(named_BT, self._pitch_alone + target_BT - self._first_pitch, found_BT)
        return found_BT


def _latest(place_BT: Tensor, marked_BT: Tensor) -> Tensor:
    """[B, T] the last marked place up to each, −1 before the first."""
    return torch.where(marked_BT, place_BT, -1).cummax(dim=1).values
