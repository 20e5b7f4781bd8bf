"""Token masks for the constrained loss: among which ids each target of a batch was chosen, from the tokens around it.

Shapes: B rows, T inputs of a row, V ids, M masks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.grammar_table import Phase
from pianolm.tokenizer.token_mask import ANY_ID, window_masks
from pianolm.tokenizer.vocabulary import CONTROLS, EIGHTHS_BY_KIND, Kind


class MaskedTargets(nn.Module):
    """Finds the token mask of every target of a batch; see `pianolm.tokenizer.token_mask.WindowMasks` for the masks.

    Two things depend on tokens outside the window. If it begins within a beat, targets up to the first pitch, duration
    bin or tempo may be any id; with explicit ties a pitch at the very beginning does not count, as it may be that of a
    tie. If it ends with a bar, nothing shows whether ties are pending, and the mask holds what may follow a tempo in
    either case. After EOS any id is allowed: another piece may begin.

    Args:
        grammar: Grammar of the tokens, which must be well-formed.

    Attributes:
        masks: [M, V] bool.
    """

    masks: Tensor

    def __init__(self, grammar: Grammar) -> None:
        super().__init__()
        found, vocabulary = window_masks(grammar), grammar.vocabulary
        kind_of = torch.from_numpy(grammar.kind_of).long()
        buffers = {
            "masks": torch.from_numpy(found.masks),
            "_phase": torch.from_numpy(found.phase),
            "_first": torch.from_numpy(found.first),
            "_kind_of": kind_of,
            "_eighths_of": torch.from_numpy(EIGHTHS_BY_KIND)[kind_of],
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)
        self._explicit, self._bars_and_ties = (
            grammar.ties == "explicit",
            grammar.bars and grammar.ties != "repeat",
        )
        self._first_pitch = vocabulary.offset(Kind.PITCH)
        self._first_duration = vocabulary.offset(Kind.DURATION)

    def forward(self, input_ids_BT: Tensor, labels_BT: Tensor, position_ids_BT: Tensor | None) -> Tensor:
        """[B, T] index in `masks` of every target's mask.

        Args:
            input_ids_BT: Inputs.
            labels_BT: Targets, shifted. The mask of a negative one, which no loss counts, means nothing.
            position_ids_BT: Positions that begin at 0 in every window, or None where a row is one window.
        """
        phase_of, first_mask, kind_of, eighths_of = (
            self.get_buffer(name) for name in ("_phase", "_first", "_kind_of", "_eighths_of")
        )
        target_BT = labels_BT.clamp(min=0)
        kind_BT, target_kind_BT = kind_of[input_ids_BT], kind_of[target_BT]
        place_BT = torch.arange(kind_BT.shape[1], device=kind_BT.device).expand_as(kind_BT)
        starts_BT = place_BT == 0 if position_ids_BT is None else position_ids_BT == 0
        opener_BT, last_pitch_BT = self._openers(input_ids_BT, kind_BT, place_BT, starts_BT)
        before_BT = eighths_of[input_ids_BT].cumsum(1)
        filled_BT = (before_BT - before_BT.gather(1, opener_BT.clamp(min=0))) % 8
        phase_BT = phase_of[kind_BT, filled_BT, target_kind_BT]
        is_duration_BT = target_kind_BT == Kind.DURATION
        member_BT = torch.where(phase_BT == Phase.BEAT, 1 + last_pitch_BT, 0)
        member_BT = torch.where(phase_BT == Phase.DURATION, target_BT - self._first_pitch, member_BT)
        member_BT = torch.where(is_duration_BT, target_BT - self._first_duration, member_BT)
        if self._bars_and_ties:  # the token after a bar shows whether ties are pending
            tied_BT = (target_kind_BT == Kind.BAR) & (phase_BT.roll(-1, dims=1) == Phase.TIES)
            phase_BT = torch.where(tied_BT, Phase.TEMPO_TIES, phase_BT)
            member_BT = torch.where(tied_BT, member_BT.roll(-1, dims=1), member_BT)
        mask_BT = first_mask[phase_BT.clamp(min=0)] + member_BT
        known_BT = (phase_BT >= 0) & ((opener_BT >= _latest(place_BT, starts_BT)) | is_duration_BT)
        mask_BT = torch.where(known_BT, mask_BT, ANY_ID)
        if self._bars_and_ties:
            ends_BT = starts_BT.roll(-1, dims=1) | (place_BT == place_BT[:, -1:])
            mask_BT = torch.where(ends_BT & (target_kind_BT == Kind.BAR), len(self.masks) - 1, mask_BT)
        return mask_BT

    def _openers(
        self, input_ids_BT: Tensor, kind_BT: Tensor, place_BT: Tensor, starts_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where the last token before each target stands at which no eighth is filled; and the beat's last pitch.

        Returns:
            [B, T] places of the last BOS, tuning, tempo, pitch or duration bin, −1 before the first; [B, T] the pitch
            that stands there, −1 where it is none or that of a tie.
        """
        is_pitch_BT = kind_BT == Kind.PITCH
        opens_BT = is_pitch_BT
        for kind in (Kind.TEMPO, Kind.TUNING, Kind.BOS, *CONTROLS):
            opens_BT = opens_BT | (kind_BT == kind)
        pitch_BT = torch.where(is_pitch_BT, input_ids_BT - self._first_pitch, -1)
        if self._explicit:
            is_duration_BT = kind_BT == Kind.DURATION
            opens_BT = (opens_BT & ~(is_pitch_BT & starts_BT)) | is_duration_BT
            pitch_BT = torch.where(is_duration_BT.roll(1, dims=1) & ~starts_BT, -1, pitch_BT)
        opener_BT = _latest(place_BT, opens_BT)
        return opener_BT, pitch_BT.gather(1, opener_BT.clamp(min=0))


def _latest(place_BT: Tensor, marked_BT: Tensor) -> Tensor:
    """[B, T] the last marked place up to each, −1 before the first."""
    return torch.where(marked_BT, place_BT, -1).cummax(dim=1).values
