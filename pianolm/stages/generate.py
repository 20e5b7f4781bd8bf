"""Stage `generate`: a model plays, on from a prompt or anew, or gives a prompt's notes their dynamics.

Reads `prompt`, `generate.*`, `seed` and `hardware`. Needs a model directory, which decides the mode. Writes to the run
directory for each piece `piece_00.mid` with its tempo, `piece_00.png` and `piece_00.wav`, and `index.html`, a page with
all of them. After several prompts the pieces are called by these: `song_00.mid` after `song.mid`. They appear together
when all are complete.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pianolm.errors import UserError
from pianolm.generation.piano_lm import PianoLM
from pianolm.generation.prompts import Prompt, read_prompts, spare
from pianolm.generation.sampling import Sampling
from pianolm.music.piece import Piece
from pianolm.report import audio
from pianolm.report.html import PagePiece, describe, save_page
from pianolm.report.piano_roll import save_piano_roll
from pianolm.stage import Metrics, StageContext
from pianolm.tokenizer.tokenizer import read_settings, tokenizer_directory
from pianolm.tokenizer.vocabulary import Kind
from pianolm.training.trainer import resolve_hardware, set_threads

VERSION = 3
PAGE = "index.html"


@dataclass(frozen=True)
class _Played:
    """A piece that is to be written.

    Attributes:
        name: Of its files.
        piece: The music.
        prompt_beats: How many of its beats are the prompt's.
        given: Whether it is the prompt itself.
    """

    name: str
    piece: Piece
    prompt_beats: int = 0
    given: bool = False


def run(ctx: StageContext) -> Metrics:
    """Lets a model play and writes what it plays to `ctx.run_dir`."""
    settings = ctx.cfg["generate"]
    prompts = read_prompts(ctx.cfg)
    spare(prompts, ctx.run_dir)
    soundfont = audio.choose_soundfont(settings["soundfont"]) if settings["audio"] else None
    hardware = resolve_hardware(ctx.cfg)
    set_threads(ctx.cfg, 1)
    lm = PianoLM.from_pretrained(ctx.upstream["model"], "cuda" if hardware.accelerator == "gpu" else "cpu")
    _refuse_other_tokenizer(lm, ctx)
    play = _render_dynamics if settings["mode"] == "dynamics" else _continue
    played, metrics = play(lm, prompts, ctx.cfg)
    velocities = np.concatenate([one.piece.notes["velocity"] for one in played])
    metrics["distinct_velocities"] = int(np.unique(velocities).size)
    played = _with_prompts(played, prompts)
    with tempfile.TemporaryDirectory(prefix=".generate_", dir=ctx.run_dir) as unfinished:
        _write(Path(unfinished), played, prompts, metrics, soundfont, ctx)
        for file in Path(unfinished).iterdir():
            file.replace(ctx.run_dir / file.name)
    if settings["page"]:
        print(f"{ctx.name}: to see and hear it, open {ctx.run_dir / PAGE}", flush=True)
    return metrics


def _refuse_other_tokenizer(lm: PianoLM, ctx: StageContext) -> None:
    """A model plays in its own tokens; another tokenizer that is asked for cannot be had."""
    given = ctx.cfg["upstream"]["tokenizer"]
    if given is None:
        return
    asked = read_settings(tokenizer_directory(Path(str(given)).expanduser()))["hashes"]
    for part, own in lm.tokenizer.hashes.items():
        if asked.get(part) != own:
            raise UserError(
                f"upstream.tokenizer={given}: its {part} {asked.get(part) or 'none'} is not that of the model "
                f"{ctx.upstream['model']}, {own or 'none'}; leave it out, or give the model that was trained with it"
            )


def _continue(lm: PianoLM, prompts: list[Prompt], cfg: Mapping[str, Any]) -> tuple[list[_Played], Metrics]:
    """New music, after each prompt if there are any."""
    settings, pieces = cfg["generate"], int(cfg["generate"]["pieces"])
    start = time.perf_counter()
    takes = lm.takes(
        _sampling(settings),
        prompt={str(prompt.path): prompt.piece for prompt in prompts} or None,
        beats=int(settings["beats"]),
        seconds=_number(settings["seconds"]),
        pieces=pieces,
        tempo_bpm=_number(settings["tempo_bpm"]),
        with_prompt=bool(settings["with_prompt"]),
        prompt_beats=settings["prompt_beats"],
        seed=int(cfg["seed"]),
    )
    seconds = time.perf_counter() - start
    valid = [lm.tokenizer.grammar.is_complete(take.ids) and take.piece.skipped == 0 for take in takes]
    new_beats = sum(take.piece.n_beats - take.prompt_beats for take in takes)
    names = _names(prompts, pieces)
    return [_Played(name, take.piece, take.prompt_beats) for name, take in zip(names, takes, strict=True)], {
        "pieces": len(takes),
        "valid_fraction": sum(valid) / len(takes),
        "tokens_per_second": round(sum(take.new_tokens for take in takes) / seconds, 1),
        "beats_per_second": round(new_beats / seconds, 2),
        "first_beat_seconds": round(min(take.first_beat_seconds for take in takes), 4),
    }


def _render_dynamics(
    lm: PianoLM, prompts: list[Prompt], cfg: Mapping[str, Any]
) -> tuple[list[_Played], Metrics]:
    """Each prompt's notes with new velocities, each time others."""
    settings, pieces = cfg["generate"], int(cfg["generate"]["pieces"])
    if pieces < 1:
        raise UserError(f"generate.pieces={pieces} found, expected at least 1")
    rule = _sampling(settings).rule("velocity")
    played, valid, drawn, seconds = [], 0, 0, 0.0
    names = iter(_names(prompts, pieces))
    for prompt in (one.piece for one in prompts):
        start = time.perf_counter()
        lively = [
            lm.render_dynamics(prompt, rule.temperature, rule.top_p, int(cfg["seed"]) + number)
            for number in range(pieces)
        ]
        seconds += time.perf_counter() - start
        ids = lm.tokenizer.encode(prompt).ids
        drawn += pieces * int((lm.tokenizer.vocabulary.kind_of[ids] == Kind.VELOCITY).sum())
        valid += sum(piece.skipped == 0 and piece.notes.size == prompt.frame_notes.size for piece in lively)
        if prompt.bar_starts.size:
            lively = [replace(piece, downbeats_sec=piece.beats_sec[prompt.bar_starts]) for piece in lively]
        played += [_Played(next(names), piece) for piece in lively]
    return played, {
        "pieces": len(played),
        "valid_fraction": valid / len(played),
        "tokens_per_second": round(drawn / seconds, 1),
        "beats_per_second": round(sum(one.piece.n_beats for one in played) / seconds, 2),
    }


def _names(prompts: list[Prompt], pieces: int) -> list[str]:
    """What the pieces are called, prompt by prompt."""
    return [f"{of or 'piece'}_{n:02d}" for of in [p.name for p in prompts] or [""] for n in range(pieces)]


def _with_prompts(played: list[_Played], prompts: list[Prompt]) -> list[_Played]:
    """Each prompt before the pieces after it, where none of these begins with it."""
    if any(one.prompt_beats for one in played):
        return played
    shown, pieces = [], iter(played)
    for prompt in prompts:
        shown.append(_Played(f"{prompt.name}_prompt" if prompt.name else "prompt", prompt.piece, given=True))
        shown += islice(pieces, len(played) // len(prompts))
    return [*shown, *pieces]


def _sampling(settings: Mapping[str, Any]) -> Sampling:
    own = {
        kind: {name: value for name, value in rule.items() if value is not None}
        for kind, rule in settings["by_kind"].items()
    }
    return Sampling(
        float(settings["temperature"]),
        int(settings["top_k"]),
        float(settings["top_p"]),
        float(settings["min_p"]),
        own,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _write(
    folder: Path,
    played: list[_Played],
    prompts: list[Prompt],
    metrics: Metrics,
    soundfont: Path | None,
    ctx: StageContext,
) -> None:
    """Writes the files of a run into an empty folder."""
    settings = ctx.cfg["generate"]
    shown = []
    for one in played:
        remark = ("before" if one.given else "after") if settings["mode"] == "dynamics" else ""
        shown.append(_write_piece(folder, remark, one, soundfont, settings))
    if settings["page"]:
        title, lead = _heading(ctx.cfg, int(metrics["pieces"]), prompts)
        save_page(folder / PAGE, title, lead, shown, _table(ctx, metrics, soundfont))


def _write_piece(
    folder: Path,
    remark: str,
    played: _Played,
    soundfont: Path | None,
    settings: Mapping[str, Any],
) -> PagePiece:
    """Writes MIDI, picture and sound of a piece; gives what the page needs."""
    name, piece, prompt_beats = played.name, played.piece, played.prompt_beats
    piece.to_midi(folder / f"{name}.mid")
    save_piano_roll(piece, folder / f"{name}.png", f"{name}: {describe(piece)}", prompt_beats)
    mp3 = b""
    if settings["audio"]:
        samples = audio.render(piece, audio.SAMPLE_RATE_HZ, soundfont)
        (folder / f"{name}.wav").write_bytes(audio.wav_bytes(samples, audio.SAMPLE_RATE_HZ))
        mp3 = audio.mp3_bytes(samples, audio.SAMPLE_RATE_HZ) if settings["page"] else b""
    return PagePiece(name, piece, (folder / f"{name}.mid").read_bytes(), mp3, prompt_beats, remark)


def _heading(cfg: Mapping[str, Any], pieces: int, prompts: list[Prompt]) -> tuple[str, str]:
    """Title of the page, and the sentence below it."""
    count = f"{pieces} piece{'s' if pieces > 1 else ''}"
    if not prompts:
        return f"{count} of piano music", "Played from nothing by a language model."
    several = len(prompts) > 1
    name = f"{len(prompts)} prompts" if several else prompts[0].path.name
    which = "The prompts" if several else "The prompt"
    if cfg["generate"]["mode"] == "dynamics":
        return f"{name} with dynamics", f"{which}, and the same notes with velocities by a language model."
    return f"{count} after {name}", f"{which}, and what a language model plays next."


def _table(ctx: StageContext, metrics: Metrics, soundfont: Path | None) -> dict[str, str]:
    """What the run was made with, for the page: the settings that count, and the figures."""
    cfg, settings = ctx.cfg, dict(ctx.cfg["generate"])
    for unused in (
        "page",
        "audio",
        "soundfont",
        "by_kind",
        *(() if cfg["prompt"] else ("prompt_grid", "with_prompt")),
    ):
        settings.pop(unused)
    if settings["seconds"] is not None:
        settings.pop("beats")
    by_kind = {f"{kind} {k}": v for kind, rule in cfg["generate"]["by_kind"].items() for k, v in rule.items()}
    sound = f"FluidSynth, {soundfont.name}" if soundfont else "own piano"
    rows = {
        "model": ctx.upstream["model"],
        "prompt": cfg["prompt"],
        "seed": cfg["seed"],
        **settings,
        **by_kind,
        "sound": sound if cfg["generate"]["audio"] else None,
        **metrics,
    }
    return {name.replace("_", " "): _said(value) for name, value in rows.items() if value is not None}


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    if isinstance(value, Path) and value.is_relative_to(Path.cwd()):
        return str(value.relative_to(Path.cwd()))
    return str(value)
