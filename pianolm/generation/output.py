"""The files of a run of stage `generate`: MIDI, picture and sound of each piece, and a page with all of them.

The MIDI file of a piece is all of it. Its picture and its sound begin `SHOWN_BARS` bars before the new part: after a
long prompt one would otherwise wait minutes for what is new, and draw and compute the same minutes for every piece.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from pianolm.generation.prompts import Prompt
from pianolm.music.continuation import part_of_piece
from pianolm.music.piece import Piece
from pianolm.report import audio
from pianolm.report.html import PagePiece, describe, save_page
from pianolm.report.piano_roll import save_piano_roll
from pianolm.stage import Metrics

PAGE = "index.html"
SHOWN_BARS, SHOWN_BEATS = 8, 32
"""Bars of a prompt that pictures and sound begin with; beats where its bars are unknown, or far longer than usual."""
_SOUND_THREADS = 2
_NOT_IN_TABLE = ("page", "audio", "soundfont", "by_kind")
_OF_PROMPTS = ("prompt_grid", "prompt_beats", "with_prompt")
_OF_NEW_BEATS = ("beats", "end", "seconds", "tempo_bpm", "prompt_beats", "with_prompt")
"""Options that say nothing where a gap is filled."""


@dataclass(frozen=True)
class OutputPiece:
    """A piece to write.

    Attributes:
        name: Name of its files, without ending.
        piece: The music.
        prompt_beats: Beats at its beginning that are the prompt's.
        remark: Shown beside its figures on the page.
        source: MIDI file that holds its notes, of which the file written is a copy with the velocities of the piece.
        gap: First beat, and the beat after the last, that is filled; None for none.
    """

    name: str
    piece: Piece
    prompt_beats: int = 0
    remark: str = ""
    source: Path | None = None
    gap: tuple[int, int] | None = None


@dataclass(frozen=True)
class Page:
    """Text of the page.

    Attributes:
        title: Heading.
        lead: The sentence below it.
        settings: Rows of the table: what the run was made with.
    """

    title: str
    lead: str
    settings: Mapping[str, str]


def write_output(
    run_dir: Path,
    pieces: list[OutputPiece],
    page: Page | None,
    with_audio: bool = True,
    soundfont: Path | None = None,
) -> None:
    """Writes `NAME.mid`, `NAME.png` and `NAME.wav` of each piece, and `index.html` (with `NAME.mp3` if it is large).

    The files are written into a temporary folder and moved when all are complete.

    Args:
        run_dir: An existing directory.
        pieces: In the order of the page.
        page: Text of the page; None for no page.
        with_audio: Whether to write WAV files, and players on the page.
        soundfont: For FluidSynth; None for the built-in piano.
    """
    excerpts = [excerpt(one) for one in pieces]
    with tempfile.TemporaryDirectory(prefix=".generate_", dir=run_dir) as temporary:
        folder = Path(temporary)
        # sound is computed outside Python's lock, mostly: it takes three times as long as the pictures drawn meanwhile
        with ThreadPoolExecutor(_SOUND_THREADS) as pool:
            sounds = [
                pool.submit(_write_sound, folder, one, page is not None, soundfont) if with_audio else None
                for one in excerpts
            ]
            shown = (_write_piece(folder, *files) for files in zip(pieces, excerpts, sounds, strict=True))
            if page is not None:
                save_page(folder / PAGE, page.title, page.lead, shown, page.settings)
            deque(shown, maxlen=0)  # those that no page has taken
        for file in folder.iterdir():
            file.replace(run_dir / file.name)


def excerpt(output: OutputPiece) -> OutputPiece:
    """What the picture and the sound of a piece hold, which the remark says.

    Of a prompt these are its last bars, of a piece with a gap some bars on either side.
    """
    piece, seam = output.piece, output.prompt_beats if output.gap is None else output.gap[0]
    bars = piece.bar_starts[piece.bar_starts < seam]
    first, said = seam - SHOWN_BEATS, f"{SHOWN_BEATS} beats"
    if bars.size >= SHOWN_BARS and seam - bars[-SHOWN_BARS] <= 2 * SHOWN_BEATS:
        first, said = int(bars[-SHOWN_BARS]), f"{SHOWN_BARS} bars"
    first = max(first, 0)
    last = piece.n_beats if output.gap is None else min(output.gap[1] + SHOWN_BEATS, piece.n_beats)
    if (first, last) == (0, piece.n_beats):
        return output
    remark = f"from {said} before the new part on, the MIDI file from the beginning"
    if output.gap is not None:
        remark = f"beats {first} to {last}, the MIDI file all of it"
    gap = None if output.gap is None else (output.gap[0] - first, output.gap[1] - first)
    return replace(
        output,
        piece=part_of_piece(piece, first, last),
        prompt_beats=0 if output.gap is not None else seam - first,
        gap=gap,
        remark=" · ".join(filter(None, (output.remark, remark))),
    )


def _write_piece(
    folder: Path, output: OutputPiece, shown: OutputPiece, sound: Future[bytes] | None
) -> PagePiece:
    """Writes MIDI and picture of a piece; returns what the page needs of it once its sound is written."""
    name, piece = output.name, shown.piece
    midi = folder / f"{name}.mid"
    output.piece.to_midi(midi, output.source)
    facts = " · ".join(filter(None, (describe(piece), shown.remark)))
    roll = save_piano_roll(piece, folder / f"{name}.png", f"{name}: {facts}", shown.prompt_beats, shown.gap)
    mp3 = b"" if sound is None else sound.result()
    wav = "" if sound is None else f"{name}.wav"
    picture = roll.without_title()
    return PagePiece(
        name, piece, midi.read_bytes(), mp3, shown.prompt_beats, shown.remark, wav, picture, shown.gap
    )


def _write_sound(folder: Path, output: OutputPiece, with_page: bool, soundfont: Path | None) -> bytes:
    """Writes the WAV file of a piece; returns its MP3 file for a page."""
    samples = audio.render(output.piece, audio.SAMPLE_RATE_HZ, soundfont)
    (folder / f"{output.name}.wav").write_bytes(audio.wav_bytes(samples, audio.SAMPLE_RATE_HZ))
    return audio.page_mp3(samples, soundfont) if with_page else b""


def add_prompts(pieces: list[OutputPiece], prompts: list[Prompt], mode: str) -> list[OutputPiece]:
    """Puts each prompt before its pieces, unless the pieces begin with the prompt.

    Args:
        pieces: Prompt by prompt, the same number of each.
        prompts: The prompts.
        mode: `dynamics` and `fill` mark prompts as before and pieces as after.
    """
    if any(one.prompt_beats for one in pieces):
        return pieces
    before, after = ("before", "after") if mode != "continue" else ("", "")
    shown: list[OutputPiece] = []
    marked = (replace(one, remark=after) for one in pieces)
    for number, prompt in enumerate(prompts):
        gap = pieces[number * (len(pieces) // len(prompts))].gap
        name = f"{prompt.name}_prompt" if prompt.name else "prompt"
        shown.append(OutputPiece(name, prompt.piece, remark=before, source=prompt.path, gap=gap))
        shown += islice(marked, len(pieces) // len(prompts))
    return [*shown, *marked]


def page_text(
    cfg: Mapping[str, Any], model: Path, soundfont: Path | None, prompts: list[Prompt], metrics: Metrics
) -> Page:
    """Heading and table of the page of a run.

    Args:
        cfg: The configuration of the run.
        model: Path of the model.
        soundfont: What the sound was made with; None for the built-in piano.
        prompts: The prompts.
        metrics: Figures of the run, rows at the end of the table.
    """
    title, lead = _heading(cfg["generate"]["mode"], int(metrics["pieces"]), prompts)
    options = {name: value for name, value in cfg["generate"].items() if name not in _NOT_IN_TABLE}
    unused = ("beats",) if options["seconds"] is not None else ()
    unused = unused if prompts else (*unused, *_OF_PROMPTS)
    unused = (*unused, *_OF_NEW_BEATS) if options["mode"] == "fill" else unused
    sound = f"FluidSynth, {soundfont.name}" if soundfont else "built-in piano"
    rows = {
        "model": model,
        "prompt": cfg["prompt"],
        "seed": cfg["seed"],
        **{name: value for name, value in options.items() if name not in unused},
        **{
            f"{kind} {key}": value
            for kind, settings in cfg["generate"]["by_kind"].items()
            for key, value in settings.items()
        },
        "sound": sound if cfg["generate"]["audio"] else None,
        **metrics,
    }
    return Page(
        title,
        lead,
        {name.replace("_", " "): _text(value) for name, value in rows.items() if value is not None},
    )


def _heading(mode: str, pieces: int, prompts: list[Prompt]) -> tuple[str, str]:
    """Title of the page and the sentence below it."""
    count = f"{pieces} piece{'s' if pieces > 1 else ''}"
    if not prompts:
        return f"{count} of piano music", "Generated by a language model without a prompt."
    several = len(prompts) > 1
    name = f"{len(prompts)} prompts" if several else prompts[0].path.name
    subject = "The prompts" if several else "The prompt"
    if mode == "dynamics":
        return f"{name} with dynamics", f"{subject}, and the same notes with velocities by a model."
    if mode == "fill":
        return (
            f"{name} with beats written anew",
            f"{subject}, and {count} in which a language model has filled the gap, which is shaded.",
        )
    return f"{count} after {name}", f"{subject}, and continuations by a language model."


def _text(value: Any) -> str:
    """A value as the table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, Path) and value.is_relative_to(Path.cwd()):
        return str(value.relative_to(Path.cwd()))
    return str(value)
