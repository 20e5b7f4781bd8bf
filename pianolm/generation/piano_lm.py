"""`PianoLM`: a published model with its tokenizer, ready to play."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.generation.dynamics import render_ids
from pianolm.generation.generator import HeldTempo, Length, Player, Song
from pianolm.generation.sampling import Sampling
from pianolm.generation.takes import Beat, Take, beats_left_out, prompt_bars, with_bars
from pianolm.lm.checkpoint import WEIGHTS, without_progress_bars
from pianolm.music.bars import bar_positions
from pianolm.music.piece import Piece
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import Kind

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


class PianoLM:
    """A Llama over piano tokens and the tokenizer it was trained with.

    Args:
        model: The network; its vocabulary is the tokenizer's. What it generates with are the weights that it has when
            it is first asked to.
        tokenizer: The tokenizer.

    Raises:
        UserError: Their vocabularies differ.
    """

    def __init__(self, model: LlamaForCausalLM, tokenizer: PianoTokenizer) -> None:
        if model.config.vocab_size != tokenizer.vocabulary.size:
            raise UserError(
                f"the model has {model.config.vocab_size} ids, the tokenizer {tokenizer.vocabulary.size}; give the "
                "tokenizer that the model was trained with"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, directory: str | Path, device: str | torch.device = "cpu") -> PianoLM:
        """Reads `config.json`, `model.safetensors` and `tokenizer/`; no pickle.

        Raises:
            UserError: A file is missing or unreadable, or model and tokenizer do not fit.
        """
        directory = Path(directory)
        _check_files(directory)
        tokenizer = PianoTokenizer.from_pretrained(directory)
        try:
            with without_progress_bars():
                model = LlamaForCausalLM.from_pretrained(
                    directory, use_safetensors=True, local_files_only=True
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{directory}: the model cannot be read ({error})") from error
        try:
            return cls(model.to(device), tokenizer)  # type: ignore[arg-type]  # transformers wraps `to` and loses its types
        except UserError as error:
            raise UserError(f"{directory}: {error}") from error

    @cached_property
    def _player(self) -> Player:
        return Player(self.model, self.tokenizer.grammar, self.tokenizer.tempo)

    def generate(
        self,
        prompt: Piece | None = None,
        beats: int = 32,
        seconds: float | None = None,
        pieces: int = 1,
        temperature: float = 0.95,
        top_p: float = 0.97,
        top_k: int = 0,
        min_p: float = 0.0,
        by_kind: Mapping[str, Mapping[str, float]] | None = None,
        tempo_bpm: float | None = None,
        with_prompt: bool = True,
        prompt_beats: int | None = None,
        seed: int = 0,
    ) -> list[Piece]:
        """Pieces of new music.

        Args:
            prompt: Music to go on from; its beats stay as they are, and its bars, where it has some, go on in the
                length of the last one, unless the model's tokens say bars: then it writes its own.
            beats: New beats a piece, at least one; a piece is shorter where the model ends it.
            seconds: New music a piece in seconds, rounded up to whole beats; counts in the place of `beats`.
            pieces: How many.
            temperature: As the next four, see `pianolm.generation.sampling.Sampling`; 0 takes the most likely token.
            top_p: 1 is off.
            top_k: 0 is off.
            min_p: 0 is off.
            by_kind: Settings of single kinds of token, such as `{"tempo": {"temperature": 0.7}}`.
            tempo_bpm: Tempo of all new beats; None leaves it to the model.
            with_prompt: Whether the pieces begin with the prompt's beats. Without, a note that goes on from the prompt
                begins with the first new beat.
            prompt_beats: n goes on from the prompt's first n beats, −n from its last n, None from all of it. A model
                sees as many of the last of these as its context holds.
            seed: The same seed gives the same pieces; the first of many is the one that `pieces=1` gives.

        Raises:
            UserError: A setting is out of range, or the prompt holds no notes or a beat longer than the context.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, by_kind or {})
        takes = self.takes(
            sampling, prompt, beats, seconds, pieces, tempo_bpm, with_prompt, prompt_beats, seed
        )
        return [take.piece for take in takes]

    def takes(
        self,
        sampling: Sampling,
        prompt: Piece | Mapping[str, Piece] | None = None,
        beats: int = 32,
        seconds: float | None = None,
        pieces: int = 1,
        tempo_bpm: float | None = None,
        with_prompt: bool = True,
        prompt_beats: int | None = None,
        seed: int = 0,
    ) -> list[Take]:
        """What `generate` gives, with tokens and timing.

        Several prompts, each by its name, are gone on from side by side. The takes come prompt by prompt, and those of
        a prompt are the ones that it gives alone; a prompt that cannot be gone on from is told by its name, before
        anything is played.
        """
        start = time.perf_counter()
        if pieces < 1:
            raise UserError(f"pieces={pieces} found, expected at least 1")
        held = self._held(tempo_bpm)
        named = prompt if isinstance(prompt, Mapping) else {"": prompt}
        songs, bars = [], []
        for name, one in named.items():
            songs += self._songs(one, prompt_beats, pieces, seed, f"prompt {name}".rstrip())
            told = None if self.tokenizer.bars else one  # with bars in its tokens the model writes its own
            bars += [prompt_bars(told, prompt_beats)] * pieces
        first_sec: dict[int, float] = {}
        for index in self._player.write(songs, _length(beats, seconds), sampling, held):
            first_sec.setdefault(index, time.perf_counter() - start)
        takes = []
        for index, song in enumerate(songs):
            kept = song.prompt_beats if with_prompt else 0
            piece = self._piece(song, with_prompt, held)
            takes.append(
                Take(
                    ids=np.array(song.ids, np.int64),
                    piece=with_bars(piece, bars[index], song.prompt_beats, song.prompt_beats - kept),
                    prompt_beats=kept,
                    new_tokens=len(song.ids) - song.given,
                    first_beat_seconds=first_sec[index],
                )
            )
        return takes

    def stream(
        self,
        prompt: Piece | None = None,
        beats: int = 32,
        seconds: float | None = None,
        temperature: float = 0.95,
        top_p: float = 0.97,
        top_k: int = 0,
        min_p: float = 0.0,
        by_kind: Mapping[str, Mapping[str, float]] | None = None,
        tempo_bpm: float | None = None,
        prompt_beats: int | None = None,
        seed: int = 0,
    ) -> Iterator[Beat]:
        """The beats of the piece that `generate` gives with `pieces=1, with_prompt=False`, one by one as they come.

        Arguments are those of `generate`; what is wrong with them is raised by this call, not by the first beat.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, by_kind or {})
        held = self._held(tempo_bpm)
        (song,) = self._songs(prompt, prompt_beats, 1, seed)
        written = self._player.write([song], _length(beats, seconds), sampling, held)
        # behind a beat that is complete stands the next one's tempo, or EOS
        return (
            Beat.of(self._piece(song, False, held, len(song.ids) - 1), number)
            for number, _ in enumerate(written)
        )

    def render_dynamics(
        self, piece: Piece, temperature: float = 0.95, top_p: float = 0.97, seed: int = 0
    ) -> Piece:
        """The same notes with new velocities.

        Notes are given and only velocities are drawn, in the order of the tokens: beat by beat, from low to high. Each
        is chosen after everything before it, new velocities included, and its own beat's pattern of its key; what is
        still to come, be it the upper notes of the same beat, is not heard. Velocities of the piece itself count for
        nothing, so that a flat score comes back with dynamics.

        Args:
            piece: At least one note.
            temperature: 0 takes the most likely velocity of each.
            top_p: See `pianolm.generation.sampling.Sampling`.
            seed: The same seed gives the same velocities.

        Returns:
            The piece as its tokens hold it: notes on frames of 1/48 beat, tempo in bins.

        Raises:
            UserError: The model has no velocities, or the piece no notes.
        """
        if self.tokenizer.codec is None:
            raise UserError(
                "render_dynamics: a model of mode base found, whose tokens carry no velocity; give one of "
                "stage=finetune"
            )
        if piece.notes.size == 0:
            raise UserError("render_dynamics: a piece without notes found, expected at least one")
        sampling = Sampling(temperature, top_p=top_p)
        return self.tokenizer.decode(render_ids(self._player, self.tokenizer, piece, sampling, _seed(seed)))

    def _songs(
        self, prompt: Piece | None, prompt_beats: int | None, pieces: int, seed: int, called: str = "prompt"
    ) -> list[Song]:
        start, entropy = np.array([self.tokenizer.vocabulary.bos], np.int64), [_seed(seed)]
        if prompt is not None:
            start = self._prompt_ids(prompt, prompt_beats, called)
            entropy.append(crc32(start.astype("<i8").tobytes()))  # else all prompts have the same luck
        seeds = np.random.SeedSequence(entropy).generate_state(pieces, np.uint32).tolist()
        return [Song(self.tokenizer.grammar, start, s, self._player.context, called) for s in seeds]

    def _prompt_ids(self, prompt: Piece, prompt_beats: int | None, called: str) -> NDArray[np.int64]:
        """Tokens [T] of the beats to go on from."""
        if prompt_beats == 0:
            raise UserError(
                "prompt_beats=0 found, expected a number of beats (below 0: of the last ones); without beats to go on "
                "from, give no prompt"
            )
        left_out = beats_left_out(prompt, prompt_beats)
        if left_out and self.tokenizer.slots:  # slots are of what was told before
            cut, positions = prompt.from_beat(left_out), bar_positions(prompt.bar_starts, prompt.n_beats)
            ids = self.tokenizer.encode_cells(cut.cells, cut.beats_sec, position_B=positions[left_out:])[1:-1]
        else:
            ids = self.tokenizer.encode(prompt).ids[:-1]
        kinds = self.tokenizer.vocabulary.kind_of[ids]
        beat_at = np.flatnonzero(kinds == Kind.TEMPO)
        first, last = 0, ids.size
        if prompt_beats is not None and abs(prompt_beats) < beat_at.size:
            first, last = (
                (0, int(beat_at[prompt_beats])) if prompt_beats > 0 else (int(beat_at[prompt_beats]), last)
            )
        if not (kinds[first:last] == Kind.PITCH).any():
            of = (
                ""
                if prompt_beats is None
                else f" in its {'first' if prompt_beats > 0 else 'last'} {abs(prompt_beats)} beats"
            )
            raise UserError(f"{called}: no notes found{of}, expected at least one to go on from")
        return ids[first:last]

    def _piece(self, song: Song, with_prompt: bool, held: HeldTempo | None, end: int | None = None) -> Piece:
        """A song's tokens up to `end` to music; with a held tempo the new beats have it exactly, not to the nearest
        bin."""
        prompt_beats = song.prompt_beats if with_prompt else 0
        if with_prompt:
            piece = self.tokenizer.decode(song.ids[:end])
        elif self.tokenizer.slots:  # the prompt knows which pitches sound on
            piece = self.tokenizer.decode(song.ids[:end]).from_beat(song.prompt_beats)
        else:
            piece = self.tokenizer.decode(song.ids[song.given : end])
        if held is None:
            return piece
        new_sec = np.arange(1, piece.n_beats - prompt_beats + 1) * (60 / held.bpm)
        given_sec = piece.beats_sec[: prompt_beats + 1]
        beats_sec = np.concatenate([given_sec, given_sec[-1] + new_sec])
        return piece.on_beats(beats_sec)

    def _held(self, tempo_bpm: float | None) -> HeldTempo | None:
        if tempo_bpm is None:
            return None
        return HeldTempo.nearest(tempo_bpm, self.tokenizer.tempo, self.tokenizer.vocabulary)


def _length(beats: int, seconds: float | None) -> Length:
    return Length(beats, None) if seconds is None else Length(None, seconds)


def _seed(seed: int) -> int:
    if seed < 0:
        raise UserError(f"seed={seed} found, expected a whole number of at least 0")
    return seed


def _check_files(directory: Path) -> None:
    """Raises UserError where a directory is not one that a stage published."""
    expected = "expected a directory published by stage=base or stage=finetune"
    if directory.is_file():
        raise UserError(f"{directory}: a file found, {expected}")
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory}: no config.json; {expected}")
    weights = directory / WEIGHTS
    if not weights.is_file():
        pickles = sorted(path.name for path in directory.glob("*") if path.suffix in PICKLES)
        found = (
            f"; {', '.join(pickles)} found, but pickled weights are not read, as they can run code"
            if pickles
            else ""
        )
        raise UserError(f"{directory}: no {WEIGHTS}{found}; {expected}")
    try:
        with safe_open(weights, "numpy"):
            pass
    except (SafetensorError, OSError) as error:
        with weights.open("rb") as file:
            pickled = file.read(2) in (b"PK", b"\x80\x02")  # as torch.save writes, now and formerly
        what = "a pickle found" if pickled else f"not readable ({error})"
        raise UserError(
            f"{weights}: {what}, expected weights in the safetensors format; {expected}"
        ) from error
