"""The tokens of MidiTok for the same performances.

Shapes: T tokens of a piece, V ids, K types of token, B rows and C inputs of a batch.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import numpy as np
import symusic
import torch
from numpy.typing import NDArray
from reminders import ELAPSED, Reminders
from representations import Performance, Tokens, digest
from torch import Tensor, nn

from pianolm.music.beats import FRAMES
from pianolm.music.cells import FRAME_NOTE_DTYPE, FrameNotes
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.token_mask import TokenMasks

MIDITOK = ("tsd", "remi", "beat", "pertok", "tsd_tempo", "tsd_reminded", "remi_reminded")
"""`tsd_tempo` also encodes the tempo of every beat, in the 50 bins of pianolm; for reminders see `reminders`."""
NOTE_PARTS = {"Pattern", "Velocity", "MicroTiming", "Duration"}
"""Types inside a note: a type that only these may follow does not end one."""
_BETWEEN = {"Bar", "TimeShift", "Pitch"}
PERTOK_AFTER = {
    "BOS": _BETWEEN,
    "Bar": _BETWEEN,
    "TimeShift": _BETWEEN,
    "Pitch": {"MicroTiming"},
    "MicroTiming": {"Velocity", "Duration"},
    "Velocity": {"Duration"},
    "Duration": {*_BETWEEN, "EOS"},
}
"""Types that may follow each type in PerTok, for which MidiTok has no table."""


class SetsByInput(nn.Module):
    """Token masks of targets as in `pianolm.lm.masked_targets`, chosen by the type of the input.

    Where the input is a reminder, the last input before it that is none chooses. If a window may begin with a reminder,
    its first targets may be any id.

    Args:
        masks_KV: What may follow each type.
        type_V: Type of each id.
        any_type: Type that any id may follow.
        elapsed: Type of the first token of a reminder, if there are reminders.
    """

    masks: Tensor

    def __init__(
        self, masks_KV: NDArray[np.bool_], type_V: NDArray[np.int64], any_type: int, elapsed: int | None
    ) -> None:
        super().__init__()
        self.register_buffer("masks", torch.from_numpy(masks_KV))
        self.register_buffer("type_of", torch.from_numpy(type_V))
        self._any, self._elapsed = any_type, elapsed

    def forward(self, input_ids_BT: Tensor, labels_BT: Tensor, position_ids_BT: Tensor | None) -> Tensor:
        type_BT = self.get_buffer("type_of")[input_ids_BT]
        if self._elapsed is None:
            return type_BT
        elapsed_BT = type_BT == self._elapsed
        given_BT = elapsed_BT | elapsed_BT.roll(1, dims=1)
        given_BT[:, 0] = True
        place_BT = torch.arange(type_BT.shape[1], device=type_BT.device).expand_as(type_BT)
        last_BT = torch.where(given_BT, -1, place_BT).cummax(dim=1).values
        return torch.where(last_BT < 0, self._any, type_BT.gather(1, last_BT.clamp(min=0)))


class MidiTokTokens(Tokens):
    """A tokenization of MidiTok: 48 positions per beat, every velocity, no metre, tempo only in `tsd_tempo`.

    BEAT has 4 positions per beat, and writes a metre, which is always 4/4, and a program, which is always the piano.
    Those called `reminded` have the tokens of `reminders` between MidiTok's.

    Attributes: see `Tokens`.
    """

    def __init__(self, name: str, mode: str) -> None:
        try:
            import miditok
        except ImportError:
            sys.exit(
                "MidiTok is not installed; pip install --constraint constraints.txt --editable '.[bench]'"
            )
        kinds = {"tsd": miditok.TSD, "remi": miditok.REMI, "beat": miditok.BEAT, "pertok": miditok.PerTok}
        kind, _, extra = name.partition("_")
        settings = miditok_settings(name, mode)
        self.tokenizer = kinds[kind](miditok.TokenizerConfig(**settings))
        vocabulary = self.tokenizer.vocab
        self._with_tempo = extra == "tempo"
        self._reminders = Reminders(vocabulary) if extra == "reminded" else None
        names = [*vocabulary, *(self._reminders.tokens if self._reminders else ())]
        type_of_id = [token.partition("_")[0] for token in names]
        types = list(dict.fromkeys(type_of_id))
        group = {"Pitch": "pitch", "Velocity": "velocity", "Tempo": "tempo"}
        super().__init__(
            {kind: group.get(kind, "time") for kind in types},
            np.array([types.index(kind) for kind in type_of_id]),
            np.array([_strikes(token, has_patterns="Pattern" in types) for token in names]),
            (vocabulary["PAD_None"], vocabulary["BOS_None"], vocabulary["EOS_None"]),
            digest({"name": name, "settings": repr(settings), "version": version("miditok")}),
        )
        self._after_KV = self._successors()

    def encode(self, given: Performance) -> NDArray[np.int64]:
        found = self.tokenizer(as_score(given.notes, given.beats_sec if self._with_tempo else None))
        sequence = found if self.tokenizer.one_token_stream else found[0]
        ids = np.array([self.bos, *sequence.ids, self.eos], np.int64)
        return ids if self._reminders is None else self._reminders.insert(ids)

    def given(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return super().given(ids) if self._reminders is None else self._reminders.given(ids)

    def masked_targets(self) -> nn.Module:
        """As `token_masks`; after EOS the next piece may begin with any id."""
        eos = self.types.index("EOS")
        after_KV = self._after_KV.copy()
        after_KV[eos] = True
        elapsed = None if self._reminders is None else self.types.index(ELAPSED)
        return SetsByInput(after_KV, self.type_V, eos, elapsed)

    def _successors(self) -> NDArray[np.bool_]:
        """[K, V] ids that may follow each type by MidiTok's table, without PAD, and without EOS inside a note."""
        follows = np.zeros((len(self.types), len(self.types)), bool)
        table = self.tokenizer.tokens_types_graph
        table = table if "Pitch" in table else PERTOK_AFTER
        for row, kind in enumerate(self.types):
            named = table.get(kind, set()) - {"PAD"}
            named -= {"EOS"} if named - {"EOS"} <= NOTE_PARTS else set()
            named -= {"Duration"} if kind == "MicroTiming" and "Velocity" in self.types else set()
            follows[row, [self.types.index(other) for other in named if other in self.types]] = True
        return follows[:, self.type_V]

    def token_masks(self, ids: NDArray[np.int64]) -> TokenMasks:
        """By the last token before that is not given; a given token has no other candidate. BOS is never scored."""
        given_T, each_V = self.given(ids), np.arange(self.type_V.size)
        last_T = np.maximum.accumulate(np.where(given_T, 0, np.arange(ids.size)))
        before_T = self.type_V[ids[np.append(0, last_T[:-1])]]
        return TokenMasks.from_masks(
            each_V == token if given else self._after_KV[before]
            for token, given, before in zip(ids, given_T, before_T, strict=True)
        )

    def decode(self, ids: NDArray[np.int64]) -> FrameNotes:
        music = ids[~self.given(ids)][1:-1].tolist()
        score = self.tokenizer.decode(music if self.tokenizer.one_token_stream else [music])
        frames, rest = divmod(FRAMES, score.ticks_per_quarter)
        assert not rest, "a tick is one or more frames"
        read = [track.notes.numpy() for track in score.tracks]
        found = np.zeros(sum(columns["time"].size for columns in read), FRAME_NOTE_DTYPE)
        if read:
            joined = {key: np.concatenate([columns[key] for columns in read]) for key in read[0]}
            found["onset"] = frames * joined["time"]
            found["end"] = found["onset"] + frames * joined["duration"]
            found["pitch"], found["velocity"] = joined["pitch"], joined["velocity"]
        return found


def _strikes(token: str, has_patterns: bool) -> int:
    """Notes that a token strikes: one at a pitch; with patterns, whose four digits are of base 3, one at each 1."""
    kind, _, value = token.partition("_")
    if not has_patterns:
        return int(kind == "Pitch")
    return np.base_repr(int(value), 3).count("1") if kind == "Pattern" else 0


def miditok_settings(name: str, mode: str) -> dict[str, Any]:
    """Onsets are exact at 48 positions per beat; durations are coarser from 2 beats on, in PerTok everywhere."""
    settings = {
        "pitch_range": (0, 127),
        "special_tokens": ["PAD", "BOS", "EOS"],
        "beat_res": {(0, 2): FRAMES, (2, 8): 12, (8, 32): 4},
        "num_velocities": 127,
        "use_velocities": mode == "velocity",
        "use_tempos": False,
        "use_time_signatures": False,
    }
    if name == "pertok":
        # sixteenths and, for short times, their triplets; micro timing gives the frames in between
        settings |= {
            "beat_res": {(0, 32): 4, (0, 2): 12},
            "ticks_per_quarter": FRAMES,
            "use_microtiming": True,
            "max_microtiming_shift": 0.125,
            "num_microtiming_bins": FRAMES // 4,
        }
    if name == "beat":
        settings |= {"programs": [0], "use_pitchdrum_tokens": False, "time_signature_range": {4: [4]}}
    if name == "tsd_tempo":
        settings |= {"use_tempos": True, "num_tempos": 50, "tempo_range": (15, 480), "log_tempos": True}
    return settings


def as_score(notes: FrameNotes, beats_sec: NDArray[np.float64] | None = None) -> symusic.Score:
    """A MIDI file whose quarter note is a beat and whose tick is a frame; with beats [B + 1] the tempo of every beat.

    The tempi are those of pianolm's bins.
    """
    score, track = symusic.Score(FRAMES), symusic.Track(name="piano", program=0, is_drum=False)
    ordered = notes[np.lexsort((notes["pitch"], notes["onset"]))]
    track.notes = symusic.Note.from_numpy(
        time=ordered["onset"].astype(np.int32),
        duration=(ordered["end"] - ordered["onset"]).astype(np.int32),
        pitch=ordered["pitch"].astype(np.int8),
        velocity=ordered["velocity"].astype(np.int8),
    )
    score.tracks.append(track)
    if beats_sec is not None:
        bins = TempoBins()
        for beat, bpm in enumerate(bins.bpm[bins.encode(beats_sec)].tolist()):
            score.tempos.append(symusic.Tempo(beat * FRAMES, bpm))
    return score
