"""Measures what was generated beside the human rest of each song.

    python report.py POP909 OUT HERE

OUT holds `songs/` (songs.py) and the runs `train/`, `generate/` and `cool/`. HERE gets results.json, README.md's
table, rolls.png, midi/ and index.html, a page that is small enough to keep; OUT gets compare.html, where every song's
human rest can be heard, too.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from figures import BAR_BEATS, Runs, figures, key_name, key_of, within
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from songs import NEW_BEATS, PROMPT_BEATS, cut

from pianolm.data.sources import pop909
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FrameNotes
from pianolm.music.piece import Piece
from pianolm.report import audio
from pianolm.report.html import PagePiece, save_page

MARKS = ("<!-- written by report.py -->", "<!-- end -->")
BEATS = PROMPT_BEATS + NEW_BEATS
HEARD_BEATS = 8
"""Of the prompt, on the page that is kept."""

SMALL_HZ, SMALL_MP3 = 16_000, 0.98
"""Of its sound: about 12 kbit/s."""

SIDES = {"continuation": "model", "human": "human"}
COOL = "model at 0.8"
Level = dict[str, float | int]


def load(out: Path, run: str) -> dict[str, dict[str, Piece]]:
    """By song: the model's continuation of a run, with the human's bars, and the human's opening."""
    found = {}
    for path in sorted((out / "songs").glob("*.mid")):
        human = Piece.from_midi(path)
        written = Piece.from_midi(out / run / f"{path.stem}_00.mid", beats="tempo_map")
        bars = human.bar_starts
        made = replace(written, downbeats_sec=written.beats_sec[bars[bars <= written.n_beats]])
        found[path.stem] = {"continuation": made, "human": human}
    return found


def training_notes(root: str) -> list[FrameNotes]:
    """The notes of every song to train on."""
    records = pop909.collect({"source": "pop909", "root": root}, Path()).records
    return [
        Piece.from_midi(record.midi_path, beats=record.beats).frame_notes
        for record in records
        if record.split == "train"
    ]


def level(samples_N: NDArray[np.float32], first_sec: float, last_sec: float) -> Level:
    """How loud a stretch of sound is."""
    heard = samples_N[round(first_sec * audio.SAMPLE_RATE_HZ) : round(last_sec * audio.SAMPLE_RATE_HZ)]
    loud = np.array([np.sqrt((heard**2).mean()), np.abs(heard).max()])
    rms, peak = 20 * np.log10(np.maximum(loud, 1e-9))
    return {"rms_dbfs": float(rms), "peak_dbfs": float(peak), "clipped": int((np.abs(heard) >= 0.999).sum())}


def measure(songs: dict[str, dict[str, Piece]], sounds: Path, training: Runs) -> dict[str, Any]:
    """Every figure of every song; those of sound where there is some."""
    measured = {}
    for name, sides in songs.items():
        key = key_of(within(sides["human"].frame_notes, 0, PROMPT_BEATS))
        measured[name] = {"key": key_name(key)}
        for side, piece in sides.items():
            last = min(piece.n_beats, BEATS)
            notes, seconds = piece.frame_notes, piece.beats_sec[PROMPT_BEATS : last + 1] - piece.beats_sec[0]
            new = within(notes, PROMPT_BEATS, last)
            measured[name][side] = {
                "beats": last - PROMPT_BEATS,
                **figures(notes, PROMPT_BEATS, last, key),
                "copied_from_prompt": Runs([within(notes, 0, PROMPT_BEATS)]).longest(new),
                "copied_from_training": training.longest(new),
                "seconds": float(seconds[-1] - seconds[0]),
                "tempo_bpm": float(60 * (last - PROMPT_BEATS) / (seconds[-1] - seconds[0])),
                "tempo_sd": float((60 / np.diff(seconds)).std()),
            }
            wav = sounds / f"{name}_00.wav"
            if wav.is_file():
                made = side == "continuation"
                samples = soundfile.read(wav, dtype="float32")[0] if made else audio.render(piece)
                measured[name][side] |= level(samples, seconds[0], seconds[-1])
    return measured


def mean(measured: dict[str, Any], side: str) -> dict[str, float]:
    return {
        key: float(np.mean([one[side][key] for one in measured.values()]))
        for key in next(iter(measured.values()))[side]
    }


def row(name: str, who: str, key: str, f: dict[str, float]) -> str:
    """A line of the table."""
    cells = [
        name,
        who,
        key,
        f"{f['notes_per_beat']:.1f}",
        f"{f['pitch_low']:.0f}–{f['pitch_high']:.0f}, {f['pitch_mean']:.0f}",
        f"{f['polyphony']:.1f}",
        f"{f['over_a_bar']:.{0 if name != 'mean' else 1}f}",
        f"{100 * f['under_an_eighth_beat']:.0f}",
        f"{f['velocity_mean']:.0f} ± {f['velocity_sd']:.0f}",
        f"{100 * f['on_eighths']:.0f}, {100 * f['on_sixteenths']:.0f}",
        f"{100 * f['in_key']:.0f}",
        f"{f['pitch_class_bits']:.2f}",
        f"{100 * f['bars_with_bass']:.0f}",
        f"{f['bar_likeness']:.2f}",
        f"{f['copied_from_prompt']:.0f}, {f['copied_from_training']:.0f}",
        f"{f['seconds']:.0f}",
        f"{f['tempo_bpm']:.0f} ± {f['tempo_sd']:.0f}",
        f"{f['rms_dbfs']:.1f}, {f['peak_dbfs']:.1f}" if "rms_dbfs" in f else "–",
    ]
    return f"| {' | '.join(cells)} |"


def table(results: dict[str, Any]) -> list[str]:
    head = (
        "song | | key | notes a beat | pitches, mean | sounding at once | longer than a bar | "
        "shorter than 1/8 beat, % | velocity | on eighths, sixteenths, % | in key, % | pitch classes, bits | "
        "bars with bass, % | bar likeness | copied from prompt, training | s | BPM | RMS, peak, dBFS"
    )
    trained = results["model"]
    return [
        f"The model: {trained['parameters']:,} parameters, {trained['tokens_seen']:,} tokens seen, "
        f"{trained['val/bits_per_note']:.1f} bits a note of the validation songs.",
        "",
        f"| {head} |",
        "|---" * (head.count("|") + 1) + "|",
        *(
            row(name, who, one["key"], one[side])
            for name, one in results["songs"].items()
            for side, who in SIDES.items()
        ),
        *(row("mean", who, "", results["mean"][side]) for side, who in {**SIDES, "cool": COOL}.items()),
    ]


def draw(songs: dict[str, dict[str, Piece]], measured: dict[str, Any], path: Path) -> None:
    """Every song as two rolls over beats: what the model and what the human plays after the same prompt."""
    drawn = Figure(figsize=(13, 1.75 * len(songs)), layout="constrained")
    grid = drawn.subplots(len(songs), 2, sharex=True, sharey="row", squeeze=False)
    for axes, (name, sides) in zip(grid, songs.items(), strict=True):
        for one, (side, piece) in zip(axes, sides.items(), strict=True):
            draw_roll(one, piece)
            one.set_title(f"{name}, {measured[name]['key']}: {SIDES[side]}", loc="left", size=9)
        pitch = np.concatenate([piece.notes["pitch"] for piece in sides.values()]).astype(int)
        octaves = range(12 * (pitch.min() // 12), pitch.max() + 13, 12)
        axes[0].set_yticks(octaves, [f"C{octave // 12 - 1}" for octave in octaves])
        axes[0].set_ylim(pitch.min() - 2, pitch.max() + 2)
    for one in grid[-1]:
        one.set_xlabel("beats", size=9)
    drawn.savefig(path, dpi=85)


def draw_roll(axes: Axes, piece: Piece) -> None:
    notes = piece.frame_notes
    onset, end = notes["onset"] / FRAMES, notes["end"] / FRAMES
    low, high = notes["pitch"] - 0.45, notes["pitch"] + 0.45
    corners = np.stack([onset, low, onset, high, end, high, end, low], axis=1).reshape(-1, 4, 2)
    painted = PolyCollection(
        list(corners), array=notes["velocity"].astype(float), cmap="viridis_r", clim=(10, 115)
    )
    axes.add_collection(painted, autolim=False)
    axes.axvspan(0, PROMPT_BEATS, color="#e6edf7", zorder=0)
    axes.vlines(
        np.arange(0, BEATS + 1, BAR_BEATS),
        0,
        1,
        transform=axes.get_xaxis_transform(),
        color="#cccccc",
        lw=0.6,
    ).set_zorder(0.5)
    axes.set_xlim(0, BEATS)
    axes.set_xticks(range(0, BEATS + 1, 8))
    axes.tick_params(labelsize=8, length=2)


def small_mp3(piece: Piece) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        audio.render(piece, SMALL_HZ),
        SMALL_HZ,
        format="MP3",
        compression_level=SMALL_MP3,
        bitrate_mode="AVERAGE",
    )
    return buffer.getvalue()


def facts(results: dict[str, Any]) -> dict[str, str]:
    """How the pieces were made, for the pages."""
    trained, played = results["model"], results["generate"]
    return {
        "songs": f"POP909 (MIT licence), every eighth of the validation songs; {PROMPT_BEATS} beats each as prompt",
        "model": f"{trained['parameters']:,} parameters, {trained['tokens_seen']:,} tokens of POP909's songs 001–720",
        "drawn": "temperature 0.95, top_p 0.97, seed 0; one take of each",
        "pieces": str(played["pieces"]),
        "valid": f"{100 * played['valid_fraction']:.0f} %",
        "made by": "experiments/continuations/run.sh",
    }


def save_small_page(songs: dict[str, dict[str, Piece]], results: dict[str, Any], here: Path) -> None:
    """The page that is kept: the last beats of each prompt, and the continuation."""
    first = PROMPT_BEATS - HEARD_BEATS
    shown = []
    for name, sides in songs.items():
        piece = cut(sides["continuation"], first, BEATS)
        midi = (here / "midi" / f"{name}.mid").read_bytes()
        shown.append(
            PagePiece(name, piece, midi, small_mp3(piece), HEARD_BEATS, results["songs"][name]["key"])
        )
    lead = (
        f"The last {HEARD_BEATS} beats of each prompt, shaded, and the {NEW_BEATS} that a language model plays next. "
        f"The MIDI files have all {PROMPT_BEATS} beats of the prompt. To keep the page small, the sound is coarse."
    )
    save_page(here / "index.html", "Continuations of ten pop songs", lead, shown, facts(results))


def save_whole_page(songs: dict[str, dict[str, Piece]], results: dict[str, Any], out: Path) -> None:
    """Each song twice, whole and in better sound."""
    shown = []
    for name, sides in songs.items():
        for side, piece in sides.items():
            file = out / ("generate" if side == "continuation" else "songs")
            midi = (file / f"{name}{'_00' if side == 'continuation' else ''}.mid").read_bytes()
            mp3 = audio.mp3_bytes(audio.render(piece), audio.SAMPLE_RATE_HZ)
            shown.append(PagePiece(f"{name} {SIDES[side]}", piece, midi, mp3, PROMPT_BEATS))
    lead = "Each prompt, shaded, with what a language model plays next, and with what stands in the song."
    save_page(out / "compare.html", "Continuations of ten pop songs", lead, shown, facts(results))


def main(root: str, out: Path, here: Path) -> None:
    songs = load(out, "generate")
    training = Runs(training_notes(root))
    measured = measure(songs, out / "generate", training)
    cool = measure(load(out, "cool"), out / "cool", training)
    runs = {stage: json.loads((out / stage / "metrics.json").read_text()) for stage in ("train", "generate")}
    for metrics in runs.values():
        for key in ("artifact", "stage"):
            del metrics[key]
    results = {
        "model": runs["train"],
        "generate": runs["generate"],
        "songs": measured,
        "mean": {**{side: mean(measured, side) for side in SIDES}, "cool": mean(cool, "continuation")},
    }
    (here / "results.json").write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    readme = here / "README.md"
    before, _, rest = readme.read_text("utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    readme.write_text(before + "\n".join([MARKS[0], *table(results), MARKS[1]]) + after, "utf-8")
    draw(songs, measured, here / "rolls.png")
    (here / "midi").mkdir(exist_ok=True)
    for name in songs:
        shutil.copyfile(out / "generate" / f"{name}_00.mid", here / "midi" / f"{name}.mid")
    save_small_page(songs, results, here)
    save_whole_page(songs, results, out)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
