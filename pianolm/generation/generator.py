"""Writing pieces token by token: the grammar's constraint, length, and what a model sees of a long piece.

Shapes: T tokens of a piece.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.generation.engine import Engine
from pianolm.generation.engine.numpy_engine import LlamaWeights, NumpyEngine
from pianolm.generation.engine.torch_engine import TorchEngine
from pianolm.generation.sampling import Drawer, Places, Sampling
from pianolm.tokenizer.grammar import Grammar, Phase
from pianolm.tokenizer.tempo import LOWEST_BPM, RANGE_BPM, TempoBins
from pianolm.tokenizer.vocabulary import Kind, Vocabulary

AT_ONCE = {"cpu": 16, "cuda": 32}
"""Pieces written side by side; more wait for a place."""


@dataclass(frozen=True)
class Length:
    """When a piece has enough: at the first beat behind so many new beats, or so many seconds of new music.

    Attributes:
        beats: None counts seconds.
        seconds: By the tempo tokens; None counts beats.
    """

    beats: int | None = 32
    seconds: float | None = None

    def __post_init__(self) -> None:
        assert (self.beats is None) != (self.seconds is None), "beats or seconds"
        if self.beats is not None and self.beats < 1:
            raise UserError(f"beats={self.beats} found, expected at least 1")
        if self.seconds is not None and not 0 < self.seconds < np.inf:
            raise UserError(f"seconds={self.seconds} found, expected more than 0")

    def reached(self, beats: int, seconds: float) -> bool:
        """Whether this is enough."""
        return beats >= self.beats if self.beats is not None else seconds >= (self.seconds or 0.0)


@dataclass(frozen=True)
class HeldTempo:
    """One tempo for all new beats.

    Attributes:
        bpm: As asked for.
        token: The tempo token nearest to it, by ratio.
    """

    bpm: float
    token: int

    @classmethod
    def nearest(cls, bpm: float, tempo: TempoBins, vocabulary: Vocabulary) -> HeldTempo:
        """Raises UserError where the tempo is out of a beat grid's range."""
        if not LOWEST_BPM <= bpm <= LOWEST_BPM * RANGE_BPM:
            raise UserError(f"tempo_bpm={bpm} found, expected {LOWEST_BPM:g} to {LOWEST_BPM * RANGE_BPM:g}")
        nearest = int(np.abs(np.log(tempo.bpm / bpm)).argmin())
        return cls(float(bpm), vocabulary.offset(Kind.TEMPO) + nearest)


class Song:
    """A piece in the making.

    Args:
        grammar: Of its tokens.
        prompt: [T] a well-formed beginning; an EOS at its end is left away.
        seed: Of its own random numbers.
        context: Of the model, which must hold the prompt's last beat.
        called: The prompt, in messages.

    Attributes:
        ids: All tokens so far.
        given: How many of them are the prompt's.
        prompt_beats: Beats of the prompt.
        beat_at: Where each beat begins in `ids`.
        new_beats: Beats begun behind the prompt.
        new_seconds: How long these last.
        done: Whether EOS has been put in.

    Raises:
        UserError: The prompt is longer than the context and not even its last beat fits.
    """

    def __init__(
        self,
        grammar: Grammar,
        prompt: NDArray[np.int64],
        seed: int,
        context: int,
        called: str = "prompt",
    ) -> None:
        self.ids: list[int] = prompt.tolist()
        if self.ids and self.ids[-1] == grammar.vocabulary.eos:
            self.ids.pop()
        self.given = len(self.ids)
        self.beat_at = np.flatnonzero(grammar.kind_of[self.ids] == Kind.TEMPO).tolist() if self.ids else []
        self.prompt_beats = len(self.beat_at)
        _refuse_long_beat(self.given, self.beat_at, context, called)
        self.state = grammar.start()
        # what came before the last beat does not matter, but to slots, which tell of what sounds on from there
        since = self.beat_at[-1] if self.beat_at and grammar.rings is None else 0
        for token in self.ids[since:]:
            self.state = grammar.advance(self.state, token)
        self.random = np.random.default_rng(seed)
        self.new_beats, self.new_seconds, self.done = 0, 0.0, False


def window_start(n_tokens: int, beat_at: Sequence[int], context: int) -> int:
    """Where what a model sees of a piece begins when its cache is filled anew.

    At the beginning if all fits; else at a beat, so that the beats kept are whole and fill at least half the context.
    Where beats are too long for that: at the first beat that fits, and where not even the last one does, at half the
    context.
    """
    if n_tokens <= context:
        return 0
    fitting = [at for at in beat_at if n_tokens - at < context]
    if not fitting:
        return n_tokens - context // 2
    half = [at for at in fitting if n_tokens - at >= context // 2]
    return half[-1] if half else fitting[0]


def _refuse_long_beat(n_tokens: int, beat_at: Sequence[int], context: int, called: str) -> None:
    last_beat = n_tokens - (beat_at[-1] if beat_at else 0)
    if n_tokens > context and last_beat >= context:
        raise UserError(
            f"{called}: its last beat has {last_beat} tokens, but the model's context is {context} and must hold at "
            "least one whole beat; give a prompt with fewer notes in a beat"
        )


class Player:
    """A model ready to write: its weights as an engine wants them, and the grammar.

    Args:
        model: Any Llama over the grammar's vocabulary. Its weights are read now.
        grammar: Says what may come next.
        tempo: Tells how long a beat lasts.

    Attributes:
        context: Most tokens that the model sees.
        places: Where the engines' logits of each id are.
        engine: Makes one with room for so many pieces.

    Raises:
        UserError: The model does something that the engines do not.
    """

    def __init__(self, model: LlamaForCausalLM, grammar: Grammar, tempo: TempoBins) -> None:
        self.grammar = grammar
        self.places = Places(grammar)
        order = self.places.order
        self.context = int(model.config.max_position_embeddings)
        self._at_once = AT_ONCE.get(model.device.type, 1)
        self.engine: Callable[[int], Engine]
        if model.device.type == "cpu":
            weights = LlamaWeights(model, order)
            self.engine = lambda rows: NumpyEngine(weights, rows)
        else:
            self.engine = lambda rows: TorchEngine(model, order, rows)
        self._advance = lru_cache(maxsize=1 << 16)(grammar.advance)
        self._first_tempo = grammar.vocabulary.offset(Kind.TEMPO)
        self._beat_sec = tempo.beat_sec.tolist()

    def fill(self, engine: Engine, row: int, ids: Sequence[int], beat_at: Sequence[int]) -> None:
        """Gives an engine what it shall see of a piece."""
        engine.clear(row)
        engine.extend(row, ids[window_start(len(ids), beat_at, self.context) :])

    def write(
        self, songs: Sequence[Song], length: Length, sampling: Sampling, held: HeldTempo | None = None
    ) -> Iterator[int]:
        """Writes songs to their ends; everything drawn is well-formed.

        A song first of all begins a new beat, and ends when the model says EOS or has written enough, then with EOS put
        in. When the context is full, the cache is filled again from the last whole beats: see `window_start`.

        Each song draws one number from a generator of its own for each token, but for those that follow from what has
        been written (ages, and the pitches behind them), and on a CPU is computed on its own, so that
        the songs beside it change no bit of it. On a GPU the last bits of logits differ with the number of songs, which
        may change a draw, rarely.

        Args:
            songs: Changed in place.
            length: Of what is new.
            sampling: Temperature and cuts.
            held: Tempo of every new beat; None lets the model choose.

        Yields:
            Index of the song that has completed a new beat, each time one does.
        """
        drawer = Drawer(self.places, sampling)
        rows = min(len(songs), self._at_once)
        engine, waiting, playing = self.engine(rows + 1), deque(range(len(songs))), dict[int, int]()
        prompt: list[int] = []  # what the spare row holds, so that a prompt of many songs is read once
        while waiting or playing:
            for row in [row for row in range(rows) if row not in playing][: len(waiting)]:
                song = songs[waiting[0]]
                if song.ids != prompt:
                    prompt = list(song.ids)
                    self.fill(engine, rows, song.ids, song.beat_at)
                engine.copy(rows, row)
                playing[row] = waiting.popleft()
            fresh: dict[int, int] = {}
            for row, index in list(playing.items()):
                song = songs[index]
                known = len(song.ids)
                if self._take(song, self._next(engine, row, song, drawer), length, held):
                    yield index
                while (
                    self.grammar.ages and not song.done and (only := self.places.only(song.state)) is not None
                ):
                    self._take(song, only, length, held)  # an age or its pitch, which completes no beat
                fresh[row] = len(song.ids) - known
                if song.done:
                    del playing[row], fresh[row]
            self._read(engine, {row: songs[index] for row, index in playing.items()}, fresh)

    def _next(self, engine: Engine, row: int, song: Song, drawer: Drawer) -> int:
        begins = not song.new_beats and song.state.between_cells
        choice = self.places.tempo if begins else self.places.choice(song.state)
        return drawer.draw(engine.logits(row, choice.low, choice.high), choice, song.random.random())

    def _take(self, song: Song, token: int, length: Length, held: HeldTempo | None) -> bool:
        """Puts a token into a song, or EOS where it would begin a beat too many; says whether a beat is complete."""
        beat = token - self._first_tempo
        complete = False
        if 0 <= beat < len(self._beat_sec):
            complete = song.new_beats > 0
            if length.reached(song.new_beats, song.new_seconds):
                token = self.grammar.vocabulary.eos
            else:
                token = token if held is None else held.token
                song.beat_at.append(len(song.ids))
                song.new_beats += 1
                song.new_seconds += self._beat_sec[beat] if held is None else 60 / held.bpm
        song.state = self._advance(song.state, token)
        song.ids.append(token)
        song.done = song.state.phase == Phase.ENDED
        return complete or song.done

    def _read(self, engine: Engine, songs: Mapping[int, Song], fresh: Mapping[int, int]) -> None:
        """Lets the engine read the last tokens of each song."""
        full = [row for row in songs if engine.lengths[row] + fresh[row] > self.context]
        for row in full:
            self.fill(engine, row, songs[row].ids, songs[row].beat_at)
        engine.read({row: songs[row].ids[-fresh[row] :] for row in songs if row not in full})
