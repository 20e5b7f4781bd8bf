"""Prompts: the MIDI files that the option `prompt` names, and the tokens of a prompt that the model continues from.

Shapes: T tokens, D bars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.lm.llama import FILL_SHARE
from pianolm.music.bars import DEFAULT_BAR_BEATS, bar_length, bar_positions
from pianolm.music.gap import Gap, beats_of_bars, gap_of
from pianolm.music.piece import BEAT_CHOICES, Piece
from pianolm.tokenizer.controls import CONTROL_NAMES
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import Kind

MODES = ("continue", "dynamics", "fill")


@dataclass(frozen=True)
class Prompt:
    """A prompt file.

    Attributes:
        path: The MIDI file.
        piece: Its music.
        name: First part of the names of pieces generated from it; empty where it is the only prompt.
    """

    path: Path
    piece: Piece
    name: str = ""


def read_prompts(cfg: Mapping[str, Any]) -> list[Prompt]:
    """Reads the files that `prompt` names, on the beats of `generate.prompt_grid`; an empty list without a prompt.

    Raises:
        UserError: A file or its beats cannot be read, two files have one name, `generate.mode` needs a prompt and there
            is none, or `generate.mode=fill` a gap that it has not, or the model to be trained would not learn what is
            asked of it.
    """
    mode, grid = cfg["generate"]["mode"], cfg["generate"]["prompt_grid"]
    if mode not in MODES:
        raise UserError(f"generate.mode={mode!r} found, expected one of {', '.join(MODES)}")
    check_what_is_learned(cfg, mode, f"generate.mode={mode}")
    if cfg["prompt"] is None:
        if mode == "dynamics":
            raise UserError("generate.mode=dynamics needs the notes of a prompt; add prompt=FILE.mid")
        if mode == "fill":
            raise UserError("generate.mode=fill needs a piece with a gap to fill; add prompt=FILE.mid")
        return []
    paths, may_be_several = _prompt_paths(cfg["prompt"])
    if len(paths) > 1 and grid not in BEAT_CHOICES:
        raise UserError(
            f"generate.prompt_grid={grid}: one beat file for {len(paths)} prompts; put a beat file beside each prompt, "
            f"or give one of {', '.join(BEAT_CHOICES)}"
        )
    paths = list(dict.fromkeys(paths))
    _refuse_equal_names(paths)
    reading = {name: cfg["data"][name] for name in ("default_tempo", "tracker")}
    prompts = [
        Prompt(path, Piece.from_midi(path, grid, **reading), path.stem if may_be_several else "")
        for path in paths
    ]
    if mode == "fill":
        for prompt in prompts:
            gap_to_fill(prompt, cfg["generate"])  # refused before anything is trained for it
    return prompts


def check_what_is_learned(cfg: Mapping[str, Any], mode: str, asked_by: str) -> None:
    """Raises UserError where levels are asked for that a mode does not know, or a model is to be trained without what
    it is asked for.

    Args:
        cfg: The configuration.
        mode: What the model is to do: `continue`, `dynamics` or `fill`.
        asked_by: The option that asks for it.
    """
    options = cfg["generate"]
    asked = [name for name in CONTROL_NAMES.values() if options[name] is not None]
    known = {"continue": CONTROL_NAMES.values(), "dynamics": (CONTROL_NAMES[Kind.LOUDNESS],), "fill": ()}
    for name in asked:
        if name not in known[mode]:
            raise UserError(
                f"generate.{name}={options[name]} found with {asked_by}, which knows no such level; leave it out"
            )
    if mode == "dynamics" or cfg["upstream"]["model"] is not None:
        return
    stage = "base" if cfg["tokenizer"]["mode"] == "base" else "finetune"
    if stage == "base" and options["loudness"] is not None:
        raise UserError(
            f"generate.loudness={options['loudness']} found with tokenizer.mode=base, whose tokens carry no velocity; "
            "ask for generate.density alone, or train with velocities"
        )
    if mode == "fill" and not cfg[stage]["loader"][FILL_SHARE]:
        raise UserError(
            f"{asked_by} found, but the model that is trained for it would not learn it: {stage}.loader.{FILL_SHARE}=0"
            f"; add {stage}.loader.{FILL_SHARE}=0.3, or give a model that learned it (upstream.model)"
        )


def gap_to_fill(prompt: Prompt, options: Mapping[str, Any]) -> Gap:
    """The gap that `generate.fill` or `generate.fill_bars` and `generate.fill_pitches` name.

    Raises:
        UserError: Neither or both of the first two are given, or the piece has no such beats.
    """
    beats, bars = options["fill"], options["fill_bars"]
    if (beats is None) == (bars is None):
        found = "neither" if beats is None else "both"
        raise UserError(
            f"generate.fill and generate.fill_bars: {found} found, expected one of them with generate.mode=fill, such "
            "as generate.fill=[16,24] for the beats 16 to 23, or generate.fill_bars=[5,7] for the bars 5 and 6"
        )
    try:
        if beats is None:
            beats = beats_of_bars(prompt.piece, bars, "generate.fill_bars")
        return gap_of(prompt.piece, beats, options["fill_pitches"], "generate.fill")
    except UserError as error:
        raise UserError(f"prompt {prompt.path}: {error}") from error


def left_out(prompt: Piece) -> list[str]:
    """Sentences about what reading a prompt decided, and about notes that the model does not see."""
    merged = prompt.collisions.merged
    doubled = f"{merged} note(s) that begin together with a note of their pitch are not seen by the model"
    return [*prompt.remarks.sentences(), *([doubled] if merged else [])]


def refuse_prompts_in(run_dir: Path, prompts: list[Prompt]) -> None:
    """Raises UserError where a prompt lies in the run directory, whose files may overwrite it."""
    for prompt in prompts:
        if prompt.path.resolve().parent == run_dir.resolve():
            raise UserError(
                f"prompt={prompt.path}: lies in the directory that this run writes to, which could overwrite it; "
                "choose another hydra.run.dir"
            )


def _prompt_paths(option: Any) -> tuple[list[Path], bool]:
    """The files that `prompt` names, and whether it can name several: a list or a pattern can."""
    if isinstance(option, list):
        if not option:
            raise UserError(
                "prompt=[]: an empty list found, expected MIDI files; leave it out to generate without a prompt"
            )
        return [path for entry in option for path in _prompt_paths(entry)[0]], True
    path = Path(str(option)).expanduser()
    if path.exists() or not set("*?") & set(str(option)):
        return [path], False
    matches = sorted(Path(match) for match in glob(str(path).replace("[", "[[]"), recursive=True))
    if not matches:
        raise UserError(
            f"prompt={option}: no file matches this pattern; give a MIDI file, several as [a.mid,b.mid], or a pattern "
            "such as 'songs/*.mid'"
        )
    return matches, True


def _refuse_equal_names(paths: list[Path]) -> None:
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(path.stem, path)
        if other != path:
            raise UserError(
                f"prompt: {other} and {path} have one name, so the pieces generated from them would, too; rename one "
                "of them, or use two runs"
            )


def beats_left_out(prompt: Piece, prompt_beats: int | None) -> int:
    """Beats at the beginning of a prompt that the model does not see: those before its last −`prompt_beats` beats."""
    return max(prompt.n_beats + prompt_beats, 0) if prompt_beats is not None and prompt_beats < 0 else 0


def prompt_bars(prompt: Piece | None, prompt_beats: int | None) -> NDArray[np.intp]:
    """[D] first beats of a prompt's known bars, counted from the first beat that the model continues from."""
    if prompt is None:
        return np.zeros(0, np.intp)
    return prompt.bar_starts - beats_left_out(prompt, prompt_beats)


def prompt_bar_beats(prompt: Piece | None, prompt_beats: int | None) -> int:
    """Most frequent length of the bars in the beats to continue from; the default where none is known."""
    starts = prompt_bars(prompt, prompt_beats)
    if prompt_beats is not None and prompt_beats > 0:
        starts = starts[starts <= prompt_beats]
    return bar_length(starts) or DEFAULT_BAR_BEATS


def prompt_ids(
    tokenizer: PianoTokenizer, prompt: Piece, prompt_beats: int | None, name: str = "prompt"
) -> NDArray[np.int64]:
    """Tokens [T] of the beats to continue from, without EOS. A tuning of the tempo scale is chosen for these beats.

    Args:
        tokenizer: Encodes the prompt.
        prompt: The music.
        prompt_beats: n for its first n beats, −n for its last n, None for all.
        name: How error messages call the prompt.

    Raises:
        UserError: No beats or no notes are left.
    """
    if prompt_beats == 0:
        raise UserError(
            "prompt_beats=0 found, expected a number of beats (negative: the last ones); leave out the prompt to "
            "continue from nothing"
        )
    first_beat = beats_left_out(prompt, prompt_beats)
    stop_beat = prompt.n_beats if prompt_beats is None or prompt_beats < 0 else prompt_beats
    tuning = tokenizer.tempo.best_tuning(prompt.beats_sec[first_beat : stop_beat + 1])
    if first_beat and tokenizer.ties != "repeat":  # ties must not refer to notes of beats left out
        kept, positions = prompt.from_beat(first_beat), bar_positions(prompt.bar_starts, prompt.n_beats)
        positions = positions[first_beat:]
        ids = tokenizer.encode_cells(kept.cells, kept.beats_sec, position_B=positions, tuning=tuning)[1:-1]
    else:
        ids = tokenizer.encode_cells(prompt.cells, prompt.beats_sec, prompt.bar_starts, tuning=tuning)[:-1]
    kinds = tokenizer.vocabulary.kind_of[ids]
    beat_starts = np.flatnonzero(kinds == Kind.TEMPO)
    first, last = 0, ids.size
    if prompt_beats is not None and abs(prompt_beats) < beat_starts.size:
        cut = int(beat_starts[prompt_beats])
        first, last = (0, cut) if prompt_beats > 0 else (cut, last)
    if not (kinds[first:last] == Kind.PITCH).any():
        where = ""
        if prompt_beats is not None:
            where = f" in its {'first' if prompt_beats > 0 else 'last'} {abs(prompt_beats)} beats"
        raise UserError(f"{name}: no notes found{where}, expected at least one to continue from")
    head = tokenizer.vocabulary.tuning_id(ids) if first else []
    return np.array([*head, *ids[first:last]], np.int64)
