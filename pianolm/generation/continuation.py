"""Continuations: the states in which pieces begin, and the pieces that finished states make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from zlib import crc32

import numpy as np

from pianolm.generation.config import GenerationConfig
from pianolm.generation.controls import AskedLevels, ControlledState
from pianolm.generation.prompts import beats_left_out, prompt_bar_beats, prompt_bars, prompt_ids
from pianolm.generation.results import GeneratedPiece, ended_by_model, prompt_cut, with_bars
from pianolm.generation.state import GenerationState
from pianolm.music.continuation import continued_piece, part_of_piece
from pianolm.music.piece import Piece
from pianolm.music.remarks import Remarks
from pianolm.tokenizer.tokenizer import PianoTokenizer


def seeds_of(entropy: Sequence[int], pieces: int) -> list[int]:
    """Seeds of pieces; the first of several is that of one."""
    found: list[int] = np.random.SeedSequence(entropy).generate_state(pieces, np.uint32).tolist()
    return found


def first_states(
    tokenizer: PianoTokenizer,
    context: int,
    prompt: Piece | None,
    prompt_beats: int | None,
    pieces: int,
    seed: int,
    asked: AskedLevels | None,
    name: str = "prompt",
) -> list[GenerationState]:
    """The pieces of a prompt before their first new token.

    Args:
        tokenizer: Of the model.
        context: Tokens that the model sees at most.
        prompt: Music to continue from; None to begin anew.
        prompt_beats: See `pianolm.generation.piano_lm.PianoLM.generate`.
        pieces: Number of pieces.
        seed: Of their random numbers.
        asked: Levels that the new music is to have; None where none are asked for.
        name: How error messages call the prompt.

    Raises:
        UserError: The prompt holds no notes, or its last beat does not fit into the context.
    """
    ids, entropy = np.array([tokenizer.vocabulary.bos], np.int64), [seed]
    if prompt is not None:
        ids = prompt_ids(tokenizer, prompt, prompt_beats, name)
        entropy.append(crc32(ids.astype("<i8").tobytes()))  # otherwise all prompts share one random stream
    new = GenerationState if asked is None else partial(ControlledState, asked)
    bar_beats = prompt_bar_beats(prompt, prompt_beats)
    return [new(tokenizer.grammar, ids, one, context, name, bar_beats) for one in seeds_of(entropy, pieces)]


def finished_piece(
    tokenizer: PianoTokenizer,
    state: GenerationState,
    prompt: Piece | None,
    prompt_beats: int | None,
    with_prompt: bool,
    config: GenerationConfig,
    first_beat_seconds: float,
) -> GeneratedPiece:
    """A finished piece, whose first beats are those of its prompt as it was played, with bars that go on."""
    cut = prompt_cut(state)
    shorter = ended_by_model(state, config.stopping)
    piece = music_of(tokenizer, state, with_prompt, config.tempo_bpm)
    if with_prompt and prompt is not None:
        first = beats_left_out(prompt, prompt_beats)
        piece = continued_piece(part_of_piece(prompt, first, first + state.prompt_beats), piece)
    barred = None if tokenizer.bars else prompt  # a model whose tokens include bars sets its own
    kept_beats = state.prompt_beats if with_prompt else 0
    bars = prompt_bars(barred, prompt_beats)
    piece = with_bars(piece, bars, state.prompt_beats, state.prompt_beats - kept_beats)
    remarks = Remarks() if prompt is None else prompt.remarks
    return GeneratedPiece(
        ids=np.array(state.ids, np.int64),
        piece=replace(piece, remarks=replace(remarks, generated=tuple(filter(None, (cut, shorter))))),
        prompt_beats=kept_beats,
        new_tokens=len(state.ids) - state.prompt_tokens,
        first_beat_seconds=first_beat_seconds,
        prompt_cut=cut,
        ended_by_model=shorter,
    )


def music_of(
    tokenizer: PianoTokenizer,
    state: GenerationState,
    with_prompt: bool,
    tempo_bpm: float | None,
    end: int | None = None,
) -> Piece:
    """The music of a piece's tokens up to `end`; with a given tempo its new beats have exactly that tempo."""
    prompt_beats = state.prompt_beats if with_prompt else 0
    if with_prompt:
        piece = tokenizer.decode(state.ids[:end])
    elif tokenizer.ties != "repeat":  # ties refer to notes of the prompt
        piece = tokenizer.decode(state.ids[:end]).from_beat(state.prompt_beats)
    else:
        tuning = tokenizer.vocabulary.tuning_id(state.ids[: state.prompt_tokens])
        piece = tokenizer.decode([*tuning, *state.ids[state.prompt_tokens : end]])
    if tempo_bpm is None:
        return piece
    new_sec = np.arange(1, piece.n_beats - prompt_beats + 1) * (60 / float(tempo_bpm))
    prompt_sec = piece.beats_sec[: prompt_beats + 1]
    return piece.on_beats(np.concatenate([prompt_sec, prompt_sec[-1] + new_sec]))
