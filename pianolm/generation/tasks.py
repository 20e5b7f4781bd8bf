"""The modes of stage `generate`: continue prompts, give their notes new dynamics, or fill gaps. Pieces with metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.generation.config import GenerationConfig
from pianolm.generation.output import OutputPiece
from pianolm.generation.piano_lm import PianoLM
from pianolm.generation.prompts import Prompt, gap_to_fill, left_out
from pianolm.generation.results import GeneratedPiece
from pianolm.music.beats import FRAMES
from pianolm.stage import Metrics
from pianolm.tokenizer.controls import LOUDNESS_CENTRES
from pianolm.tokenizer.vocabulary import Kind

if TYPE_CHECKING:  # imports torch, without which a language model is played
    from pianolm.dynamics.renderer import DynamicsModel


def generate_output(
    lm: PianoLM | DynamicsModel,
    prompts: list[Prompt],
    options: Mapping[str, Any],
    seed: int,
    say: Callable[[str], None],
) -> tuple[list[OutputPiece], Metrics]:
    """The pieces of a run and its metrics.

    Args:
        lm: The model; a dynamics model for mode dynamics alone.
        prompts: Prompt files, none to generate from nothing.
        options: The options `generate.*`.
        seed: Of the random numbers.
        say: Is told in a sentence what was left out, and which pieces are shorter than asked for.

    Raises:
        UserError: An option is out of range, or a prompt cannot be used.
    """
    if options["pieces"] < 1:
        raise UserError(f"generate.pieces={options['pieces']} found, expected at least 1")
    for prompt in prompts:
        for sentence in left_out(prompt.piece):
            say(f"prompt {prompt.path}: {sentence}")
    if not isinstance(lm, PianoLM):
        pieces, metrics = _render_by_dynamics_model(lm, prompts, options, seed)
    elif options["mode"] == "dynamics":
        pieces, metrics = _render_dynamics(lm, prompts, options, seed)
    elif options["mode"] == "fill":
        pieces, metrics = _fill(lm, prompts, options, seed)
    else:
        pieces, metrics = _continue(lm, prompts, options, seed, say)
    velocities = np.concatenate([one.piece.notes["velocity"] for one in pieces])
    return pieces, {**metrics, "distinct_velocities": int(np.unique(velocities).size)}


def _continue(
    lm: PianoLM, prompts: list[Prompt], options: Mapping[str, Any], seed: int, say: Callable[[str], None]
) -> tuple[list[OutputPiece], Metrics]:
    """New music after each prompt, or from nothing."""
    start = time.perf_counter()
    generated = lm.generate_pieces(
        {str(prompt.path): prompt.piece for prompt in prompts} or None,
        GenerationConfig.from_options(options),
        pieces=options["pieces"],
        with_prompt=options["with_prompt"],
        prompt_beats=options["prompt_beats"],
        seed=seed,
    )
    seconds = time.perf_counter() - start
    valid = [lm.tokenizer.grammar.is_complete(one.ids) and one.piece.skipped == 0 for one in generated]
    new_beats = sum(one.piece.n_beats - one.prompt_beats for one in generated)
    velocity = np.concatenate([_new_velocities(one) for one in generated])
    names = _names(prompts, options["pieces"])
    for number, (name, one) in enumerate(zip(names, generated, strict=True)):
        if one.prompt_cut and number % options["pieces"] == 0:
            say(f"prompt {prompts[number // options['pieces']].path}: {one.prompt_cut}")
        if one.ended_by_model:
            say(f"{name}: {one.ended_by_model}")
    pieces = [
        OutputPiece(name, one.piece, one.prompt_beats) for name, one in zip(names, generated, strict=True)
    ]
    return pieces, {
        "pieces": len(generated),
        "valid_fraction": sum(valid) / len(generated),
        "tokens_per_second": round(sum(one.new_tokens for one in generated) / seconds, 1),
        "beats_per_second": round(new_beats / seconds, 2),
        "first_beat_seconds": round(min(one.first_beat_seconds for one in generated), 4),
        "notes_per_beat": round(velocity.size / max(new_beats, 1), 2),
        **(
            {"mean_velocity": round(float(velocity.mean()), 1)}
            if lm.tokenizer.codec and velocity.size
            else {}
        ),
    }


def _new_velocities(generated: GeneratedPiece) -> NDArray[np.uint8]:
    """Velocities of the notes behind the prompt; one held over from a prompt that is left out begins there."""
    notes = generated.piece.frame_notes
    velocity: NDArray[np.uint8] = notes["velocity"][notes["onset"] >= generated.prompt_beats * FRAMES]
    return velocity


def _render_dynamics(
    lm: PianoLM, prompts: list[Prompt], options: Mapping[str, Any], seed: int
) -> tuple[list[OutputPiece], Metrics]:
    """Each prompt's notes with new velocities, once per piece."""
    if options["loudness"] is not None:
        raise UserError(
            f"generate.loudness={options['loudness']}: a language model found, which cannot be told in "
            "generate.mode=dynamics; give a dynamics model (upstream.model=dynamics), or leave it out"
        )
    rule = GenerationConfig.from_options(options).rule_of("velocity")
    pieces: list[OutputPiece] = []
    valid, n_sampled, seconds = 0, 0, 0.0
    names = iter(_names(prompts, options["pieces"]))
    for prompt in prompts:
        start = time.perf_counter()
        rendered = [
            lm.render_dynamics(prompt.piece, rule.temperature, rule.top_p, seed + number, language_model=True)
            for number in range(options["pieces"])
        ]
        seconds += time.perf_counter() - start
        ids = lm.tokenizer.encode(prompt.piece).ids
        n_sampled += len(rendered) * int((lm.tokenizer.vocabulary.kind_of[ids] == Kind.VELOCITY).sum())
        valid += sum(piece.skipped == 0 for piece in rendered)
        pieces += [OutputPiece(next(names), piece, source=prompt.path) for piece in rendered]
    return pieces, {
        "pieces": len(pieces),
        "valid_fraction": valid / len(pieces),
        "tokens_per_second": round(n_sampled / seconds, 1),
        "beats_per_second": round(sum(one.piece.n_beats for one in pieces) / seconds, 2),
    }


def _render_by_dynamics_model(
    model: DynamicsModel, prompts: list[Prompt], options: Mapping[str, Any], seed: int
) -> tuple[list[OutputPiece], Metrics]:
    """Each prompt's notes with new velocities, once per piece. Of the options, temperature and loudness count."""
    config = GenerationConfig.from_options(options)
    is_given = config.temperature is not None or "velocity" in config.by_kind
    temperature = config.rule_of("velocity").temperature if is_given else None
    loudness = options["loudness"]
    median = None if loudness is None else LOUDNESS_CENTRES[loudness - 1]
    names = iter(_names(prompts, options["pieces"]))
    start = time.perf_counter()
    pieces = [
        OutputPiece(
            next(names),
            model.render(prompt.piece, temperature, seed + number, median),
            source=prompt.path,
        )
        for prompt in prompts
        for number in range(options["pieces"])
    ]
    seconds = time.perf_counter() - start
    return pieces, {
        "pieces": len(pieces),
        "notes_per_second": round(sum(one.piece.notes.size for one in pieces) / seconds, 1),
        "beats_per_second": round(sum(one.piece.n_beats for one in pieces) / seconds, 2),
    }


def _fill(
    lm: PianoLM, prompts: list[Prompt], options: Mapping[str, Any], seed: int
) -> tuple[list[OutputPiece], Metrics]:
    """Each prompt with the beats of its gap written anew, once per piece."""
    config = GenerationConfig.of_gaps(options)
    pieces: list[OutputPiece] = []
    valid, new_tokens, new_beats, seconds, first = 0, 0, 0, 0.0, math.inf
    names = iter(_names(prompts, options["pieces"]))
    for prompt in prompts:
        gap, start = gap_to_fill(prompt, options), time.perf_counter()
        filled = lm.fill_pieces(
            prompt.piece, gap, config, pieces=options["pieces"], seed=seed, name=f"prompt {prompt.path}"
        )
        seconds += time.perf_counter() - start
        first = min(first, *(one.first_beat_seconds for one in filled))
        valid += sum(lm.tokenizer.fill_grammar.is_complete(one.ids) for one in filled)
        new_tokens, new_beats = (
            new_tokens + sum(one.new_tokens for one in filled),
            new_beats + len(filled) * gap.n_beats,
        )
        pieces += [OutputPiece(next(names), one.piece, gap=(gap.first, gap.stop)) for one in filled]
    return pieces, {
        "pieces": len(pieces),
        "valid_fraction": valid / len(pieces),
        "tokens_per_second": round(new_tokens / seconds, 1),
        "beats_per_second": round(new_beats / seconds, 2),
        "first_beat_seconds": round(first, 4),
    }


def _names(prompts: list[Prompt], pieces: int) -> list[str]:
    """Names of the pieces, prompt by prompt."""
    prompt_names = [prompt.name for prompt in prompts] or [""]
    return [f"{name or 'piece'}_{number:02d}" for name in prompt_names for number in range(pieces)]
