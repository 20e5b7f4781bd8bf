"""The table, the headline figures, the picture and the pages of the continuations.

    python report.py POP909 RUNS OUT

RUNS holds `songs/` (songs.py) and the runs `train/`, `generate/` and `cool/`. OUT gets results.jsonl, metrics.json,
the table of README.md, rolls.png, midi/ and index.html, a page that is small enough to keep; RUNS gets compare.html,
with the human continuation of every song.
"""

from __future__ import annotations

import io
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from figures import BAR_BEATS, figures
from numpy.typing import NDArray
from songs import NEW_BEATS, PROMPT_BEATS

from experiments.results import Row, publish, read_metrics, table
from pianolm.data.sources import pop909
from pianolm.evaluation.copied_notes import NoteRuns
from pianolm.evaluation.excerpts import cut, within
from pianolm.evaluation.music_statistics import key_name, key_of
from pianolm.music.piece import Piece
from pianolm.report import audio
from pianolm.report.html import PagePiece, save_page
from pianolm.report.side_by_side import draw_side_by_side

BEATS = PROMPT_BEATS + NEW_BEATS
HEARD_BEATS = 8
"""Beats of the prompt on the page that is kept."""

SMALL_HZ, SMALL_MP3 = 16_000, 0.98
"""Sample rate and compression of the sound on that page: about 12 kbit/s."""

ROLLS_DPI = 85

MODEL, HUMAN, COOL = "model", "human", "model at 0.8"
HEADLINES = (
    *("bar_likeness", "in_key", "bars_with_bass", "on_eighths", "under_an_eighth_beat", "over_a_bar"),
    *("velocity_mean", "velocity_sd", "tempo_sd", "copied_from_prompt", "copied_from_training"),
)
"""Means in metrics.json, those of the human continuations with `human_` in front."""

Sides = dict[str, Piece]


def load(runs: Path, run: str) -> dict[str, Sides]:
    """By song: the model's continuation in a run, with the human's bar lines, and the human performance."""
    found = {}
    for path in sorted((runs / "songs").glob("*.mid")):
        human = Piece.from_midi(path)
        written = Piece.from_midi(runs / run / f"{path.stem}_00.mid", beats="tempo_map")
        bars = human.bar_starts
        made = replace(written, downbeats_sec=written.beats_sec[bars[bars <= written.n_beats]])
        found[path.stem] = {MODEL: made, HUMAN: human}
    return found


def training_notes(root: str) -> NoteRuns:
    """The notes of every training song."""
    records = pop909.collect({"source": "pop909", "root": root}, Path()).records
    return NoteRuns.of(
        Piece.from_midi(record.midi_path, beats=record.beats).frame_notes
        for record in records
        if record.split == "train"
    )


def longest_run(notes: NoteRuns, other: NoteRuns) -> int:
    """Notes of the longest run that one piece shares with others."""
    return int(notes.longest_in(other)[0])


def loudness(samples_N: NDArray[np.float32], first_sec: float, last_sec: float) -> dict[str, float | int]:
    """Level of a stretch of sound, relative to full scale."""
    heard = samples_N[round(first_sec * audio.SAMPLE_RATE_HZ) : round(last_sec * audio.SAMPLE_RATE_HZ)]
    levels = np.array([np.sqrt((heard**2).mean()), np.abs(heard).max()])
    rms, peak = 20 * np.log10(np.maximum(levels, 1e-9))
    return {"rms_dbfs": float(rms), "peak_dbfs": float(peak), "clipped": int((np.abs(heard) >= 0.999).sum())}


def measure(songs: dict[str, Sides], sounds: Path, training: NoteRuns) -> list[Row]:
    """A row for each song and side; with loudness where the model's sound exists."""
    rows = []
    for name, sides in songs.items():
        key = key_of(within(sides[HUMAN].frame_notes, 0, PROMPT_BEATS))
        for side, piece in sides.items():
            last = min(piece.n_beats, BEATS)
            notes, seconds = piece.frame_notes, piece.beats_sec[PROMPT_BEATS : last + 1] - piece.beats_sec[0]
            new, prompt = (
                NoteRuns.of([within(notes, first, end)])
                for first, end in ((PROMPT_BEATS, last), (0, PROMPT_BEATS))
            )
            row = {
                "song": name,
                "key": key_name(key),
                "side": side,
                "beats": last - PROMPT_BEATS,
                **figures(piece, PROMPT_BEATS, last, key),
                "copied_from_prompt": longest_run(new, prompt),
                "copied_from_training": longest_run(new, training),
                "seconds": float(seconds[-1] - seconds[0]),
                "tempo_bpm": float(60 * (last - PROMPT_BEATS) / (seconds[-1] - seconds[0])),
            }
            wav = sounds / f"{name}_00.wav"
            if wav.is_file():
                samples = soundfile.read(wav, dtype="float32")[0] if side == MODEL else audio.render(piece)
                row |= loudness(samples, seconds[0], seconds[-1])
            rows.append(row)
    return rows


def mean(rows: list[Row], side: str, name: str) -> Row:
    """The mean over songs of one side, as a row of its own."""
    of_side = [row for row in rows if row["side"] == side]
    keys = [key for key, value in of_side[0].items() if not isinstance(value, str)]
    return {
        "song": "mean",
        "side": name,
        **{key: float(np.mean([row[key] for row in of_side])) for key in keys},
    }


def cells(row: Row) -> list[str]:
    """A line of the table."""
    return [
        *(row["song"], row["side"], row.get("key", "")),
        f"{row['notes_per_beat']:.1f}",
        f"{row['pitch_low']:.0f}–{row['pitch_high']:.0f}, {row['pitch_mean']:.0f}",
        f"{row['polyphony']:.1f}",
        f"{row['over_a_bar']:.{0 if row['song'] != 'mean' else 1}f}",
        f"{100 * row['under_an_eighth_beat']:.0f}",
        f"{row['velocity_mean']:.0f} ± {row['velocity_sd']:.0f}",
        f"{100 * row['on_eighths']:.0f}, {100 * row['on_sixteenths']:.0f}",
        f"{100 * row['in_key']:.0f}",
        f"{row['pitch_class_bits']:.2f}",
        f"{100 * row['bars_with_bass']:.0f}",
        f"{row['bar_likeness']:.2f}",
        f"{row['copied_from_prompt']:.0f}, {row['copied_from_training']:.0f}",
        f"{row['seconds']:.0f}",
        f"{row['tempo_bpm']:.0f} ± {row['tempo_sd']:.0f}",
        f"{row['rms_dbfs']:.1f}, {row['peak_dbfs']:.1f}" if "rms_dbfs" in row else "–",
    ]


def tables(rows: list[Row]) -> dict[str, list[str]]:
    head = (
        "song | side | key | notes per beat | pitches, mean | polyphony | longer than a bar | "
        "shorter than 1/8 beat, % | velocity | on eighths, sixteenths, % | in key, % | pitch classes, bits | "
        "bars with bass, % | bar likeness | copied from prompt, training | s | BPM | RMS, peak, dBFS"
    )
    return {"results": table(head.split(" | "), [cells(row) for row in rows if "song" in row])}


def headlines(rows: list[Row]) -> dict[str, float]:
    runs = {row["run"]: row for row in rows if "run" in row}
    means = {row["side"]: row for row in rows if row.get("song") == "mean"}
    return {
        **{key: runs["train"][key] for key in ("val/bits_per_note", "parameters", "tokens_seen")},
        "valid_fraction": runs["generate"]["valid_fraction"],
        **{key: round(means[MODEL][key], 4) for key in HEADLINES},
        **{f"human_{key}": round(means[HUMAN][key], 4) for key in HEADLINES},
    }


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


def facts(rows: list[Row]) -> dict[str, str]:
    """How the pieces were made, for the pages."""
    runs = {row["run"]: row for row in rows if "run" in row}
    trained, generated = runs["train"], runs["generate"]
    return {
        "songs": f"POP909 (MIT licence), every eighth of the validation songs; {PROMPT_BEATS} beats each as prompt",
        "model": f"{trained['parameters']:,} parameters, {trained['tokens_seen']:,} tokens of POP909's songs 001–720",
        "sampling": "temperature 0.95, top_p 0.97, seed 0; one sample of each",
        "pieces": str(generated["pieces"]),
        "valid": f"{100 * generated['valid_fraction']:.0f} %",
        "made by": "experiments/continuations/run.sh",
    }


def save_small_page(songs: dict[str, Sides], keys: dict[str, str], rows: list[Row], out: Path) -> None:
    """The page that is kept: the last beats of each prompt, and the continuation."""
    first = PROMPT_BEATS - HEARD_BEATS
    pieces = []
    for name, sides in songs.items():
        piece = cut(sides[MODEL], first, BEATS)
        midi = (out / "midi" / f"{name}.mid").read_bytes()
        pieces.append(PagePiece(name, piece, midi, small_mp3(piece), HEARD_BEATS, keys[name]))
    lead = (
        f"The last {HEARD_BEATS} beats of each prompt, shaded, and the {NEW_BEATS} beats that a language model plays "
        f"next. The MIDI files have all {PROMPT_BEATS} beats of the prompt. To keep the page small, the sound is "
        "coarse."
    )
    save_page(out / "index.html", "Continuations of ten pop songs", lead, pieces, facts(rows))


def save_full_page(songs: dict[str, Sides], rows: list[Row], runs: Path) -> None:
    """Both sides of each song, complete and in better sound."""
    pieces = []
    for name, sides in songs.items():
        files = {MODEL: runs / "generate" / f"{name}_00.mid", HUMAN: runs / "songs" / f"{name}.mid"}
        for side, piece in sides.items():
            mp3 = audio.mp3_bytes(audio.render(piece), audio.SAMPLE_RATE_HZ)
            pieces.append(PagePiece(f"{name} {side}", piece, files[side].read_bytes(), mp3, PROMPT_BEATS))
    lead = "Each prompt, shaded, with the model's continuation and with the song's own."
    save_page(runs / "compare.html", "Continuations of ten pop songs", lead, pieces, facts(rows))


def main(root: str, runs: Path, out: Path) -> None:
    songs = load(runs, "generate")
    training = training_notes(root)
    measured = measure(songs, runs / "generate", training)
    cool = measure(load(runs, "cool"), runs / "cool", training)
    rows = [
        *({"run": stage, **read_metrics(runs / stage)} for stage in ("train", "generate")),
        *measured,
        *(mean(measured, side, side) for side in (MODEL, HUMAN)),
        mean(cool, MODEL, COOL),
    ]
    publish(out, rows, headlines(rows), tables(rows))
    keys = {row["song"]: row["key"] for row in measured}
    rolls = {f"{name}, {keys[name]}": sides for name, sides in songs.items()}
    draw_side_by_side(rolls, PROMPT_BEATS, [BAR_BEATS] * len(rolls)).savefig(out / "rolls.png", dpi=ROLLS_DPI)
    (out / "midi").mkdir(exist_ok=True)
    for name in songs:
        shutil.copyfile(runs / "generate" / f"{name}_00.mid", out / "midi" / f"{name}.mid")
    save_small_page(songs, keys, rows, out)
    save_full_page(songs, rows, runs)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(sys.argv[1], *map(Path, sys.argv[2:]))
