"""How fast pianolm tokenizes and writes MIDI, beside MidiTok: one process, one thread, the same files.

Every pass goes over all files, reading and writing included. The sides take turns; each pass starts with new
tokenizers that have seen one file which is not among those measured, so that nothing is remembered from pass to pass.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import symusic

from pianolm import PianoTokenizer, Piece
from pianolm.data.sources.asap import collect
from pianolm.errors import UserError
from pianolm.music.beats import read_beats
from pianolm.music.midi import read_midi

try:
    from miditok import REMI, TSD, MusicTokenizer, PerTok, TokenizerConfig
except ImportError:
    sys.exit("MidiTok is not installed; pip install --constraint constraints.txt --editable '.[bench]'")

HERE = Path(__file__).parent
SEED = 0
SPLITS = ("train", "validation")
REQUIRED = {
    "speedup_vs_miditok_remi": 10.0,
    "speedup_velocity_vs_miditok_remi": 4.0,
    "decode_speedup_vs_miditok_remi": 4.0,
    "decode_speedup_velocity_vs_miditok_remi": 4.0,
}
RATIOS = {
    "speedup_vs_miditok_remi": ("remi_base encode", "base encode"),
    "speedup_velocity_vs_miditok_remi": ("remi_velocity encode", "velocity encode"),
    "decode_speedup_vs_miditok_remi": ("remi_base decode", "base decode"),
    "decode_speedup_velocity_vs_miditok_remi": ("remi_velocity decode", "velocity decode"),
}
FIT_SECONDS, FIT_GIB = 60.0, 2.0
MARKS = ("<!-- written by bench.py -->", "<!-- end -->")


@dataclass(frozen=True)
class Job:
    """One performance: its MIDI file, its beat annotation, how many notes it has, where to write what is decoded."""

    midi: Path
    beats: Path
    notes: int
    out: Path


Ready = Callable[[Job], Any]
Action = Callable[[Any], object]
Start = Callable[[], tuple[Ready, Action]]


@dataclass
class Side:
    """One contestant.

    Attributes:
        name: Whose, what, which way.
        start: Makes a new tokenizer; gives what readies a job, untimed, and what is timed.
        collected: Whether Python's garbage collector runs as usual; MidiTok, which makes many objects, feels it.
        seconds: Of each pass.
    """

    name: str
    start: Start
    collected: bool = True
    seconds: list[float] = field(default_factory=list)

    def measure(self, jobs: list[Job], warm_up: Job) -> None:
        ready, action = self.start()
        action(ready(warm_up))
        gc.collect()
        spent = 0.0
        if not self.collected:
            gc.disable()
        try:
            for job in jobs:
                given = ready(job)
                job.out.unlink(
                    missing_ok=True
                )  # a new file is cheaper to put in place than one to be replaced
                begin = time.perf_counter()
                action(given)
                spent += time.perf_counter() - begin
        finally:
            gc.enable()
        self.seconds.append(spent)
        print(f"{self.name}: {spent:.2f} s", file=sys.stderr)

    def figures(self, notes: int) -> dict[str, Any]:
        middle = median(self.seconds)
        return {
            "notes_per_second": round(notes / middle),
            "seconds": round(middle, 4),
            "seconds_min": round(min(self.seconds), 4),
            "seconds_max": round(max(self.seconds), 4),
            "passes": len(self.seconds),
        }


def choose(root: Path, count: int, out: Path) -> list[Job]:
    """`count` readable performances of the train and validation splits, chosen by the seed."""
    records = collect({"source": "asap", "root": str(root), "beats": "auto"}, out).records
    usable = [r for r in records if r.kind == "performance" and r.split in SPLITS and r.midi_path.is_file()]
    usable.sort(key=lambda record: record.path)
    random.Random(SEED).shuffle(usable)
    jobs: list[Job] = []
    for record in usable:
        if len(jobs) == count:
            break
        try:
            piece = Piece.from_midi(record.midi_path, beats=record.beats)
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        notes = piece.notes.size
        jobs.append(Job(record.midi_path, Path(record.beats), notes, out / f"{len(jobs)}.mid"))
    return jobs


def miditok_config(**changes: Any) -> TokenizerConfig:
    """As fine as pianolm: 48 positions a beat, every velocity; without tempi and metre, which only cost time."""
    settings: dict[str, Any] = {
        "beat_res": {(0, 2): 48, (2, 8): 12, (8, 32): 4},
        "num_velocities": 127,
        "use_velocities": True,
        "use_tempos": False,
        "use_time_signatures": False,
    }
    return TokenizerConfig(**settings | changes)


def pertok_config() -> TokenizerConfig:
    """The grid of a sixteenth and the triplets beside it, with what lies between as micro timing."""
    return miditok_config(
        beat_res={(0, 32): 4, (0, 2): 12},
        ticks_per_quarter=480,
        use_microtiming=True,
        max_microtiming_shift=0.125,
        num_microtiming_bins=30,
    )


MIDITOK: dict[str, Callable[[], MusicTokenizer]] = {
    "remi_base": lambda: REMI(miditok_config(use_velocities=False)),
    "remi_velocity": lambda: REMI(miditok_config()),
    "remi_velocity_defaults": lambda: REMI(),
    "tsd_velocity": lambda: TSD(miditok_config()),
    "pertok_velocity": lambda: PerTok(pertok_config()),
}


def pianolm_encodes(directory: Path) -> Start:
    def start() -> tuple[Ready, Action]:
        tokenizer = PianoTokenizer.from_pretrained(directory)
        return as_it_is, lambda job: tokenizer.encode(Piece.from_midi(job.midi, beats=job.beats)).ids

    return start


def miditok_encodes(name: str) -> Start:
    def start() -> tuple[Ready, Action]:
        tokenizer = MIDITOK[name]()
        return as_it_is, lambda job: tokenizer.encode(job.midi)

    return start


def as_it_is(job: Job) -> Job:
    return job


def pianolm_decodes(directory: Path, jobs: Iterable[Job]) -> Start:
    _, encode = pianolm_encodes(directory)()
    ids = {job.midi: encode(job) for job in jobs}

    def start() -> tuple[Ready, Action]:
        tokenizer = PianoTokenizer.from_pretrained(directory)
        return (
            lambda job: (ids[job.midi], job.out),
            lambda given: tokenizer.decode(given[0]).to_midi(given[1]),
        )

    return start


def miditok_decodes(name: str, jobs: Iterable[Job]) -> Start:
    """From ids a track; kept as arrays, so that waiting ids are no burden to the garbage collector."""
    tokenizer = MIDITOK[name]()
    ids = {job.midi: [np.array(track.ids) for track in tokenizer.encode(job.midi)] for job in jobs}

    def start() -> tuple[Ready, Action]:
        tokenizer = MIDITOK[name]()
        return (
            lambda job: ([track.tolist() for track in ids[job.midi]], job.out),
            lambda given: tokenizer.decode(given[0]).dump_midi(str(given[1])),
        )

    return start


def miditok_decodes_named(name: str) -> Start:
    """From the token names that MidiTok's encoder leaves beside the ids: spares it the way from id to name."""

    def start() -> tuple[Ready, Action]:
        tokenizer = MIDITOK[name]()
        return (
            lambda job: (tokenizer.encode(job.midi), job.out),
            lambda given: tokenizer.decode(given[0]).dump_midi(str(given[1])),
        )

    return start


def notes_written(start: Start, jobs: list[Job]) -> int:
    """Notes in the files that a decoder writes: shows that both sides carry all the music."""
    ready, action = start()
    for job in jobs:
        action(ready(job))
    return sum(len(track.notes) for job in jobs for track in symusic.Score(str(job.out)).tracks)


def breakdown(base: Path, velocity: Path, jobs: list[Job], repeats: int) -> dict[str, float]:
    """Milliseconds a file of each step inside pianolm, the median over the passes."""
    passes: dict[str, list[float]] = {}
    for _ in range(repeats):
        plain, full = PianoTokenizer.from_pretrained(base), PianoTokenizer.from_pretrained(velocity)
        spent: dict[str, float] = {}

        def timed(name: str, step: Callable[..., Any], *given: Any, spent: dict[str, float] = spent) -> Any:
            begin = time.perf_counter()
            result = step(*given)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - begin
            return result

        assert full.codec is not None, "a velocity tokenizer has a codec"
        for job in jobs:
            notes = timed("read MIDI", read_midi, job.midi).notes
            annotation = timed("read beats", read_beats, job.beats)
            piece = timed("beat grid", Piece.from_notes, notes, annotation)
            cells = timed("cells", getattr, piece, "cells")
            timed("pattern codes", plain.codebook.encode, cells.sustain, cells.onset, True, 0)
            timed("tempo", plain.tempo.encode, piece.beats_sec)
            timed("velocity codes", full.codec.encode, cells)
            ids = timed("encode base", plain.encode, piece).ids
            full_ids = timed("encode velocity", full.encode, piece).ids
            back = timed("decode base", plain.decode, ids)
            timed("decode velocity", full.decode, full_ids)
            timed("write MIDI", back.to_midi, job.out)
        spent["assemble"] = spent["encode base"] - spent["pattern codes"] - spent["tempo"]
        for name, seconds in spent.items():
            passes.setdefault(name, []).append(1000 * seconds / len(jobs))
    return {name: round(median(values), 3) for name, values in passes.items()}


def measure(arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    *jobs, warm_up = choose(arguments.asap, arguments.files + 1, out)
    every, notes = [*jobs, warm_up], sum(job.notes for job in jobs)
    base, velocity = arguments.base, arguments.velocity
    starts = {
        "pianolm base encode": pianolm_encodes(base),
        "miditok remi_base encode": miditok_encodes("remi_base"),
        "pianolm velocity encode": pianolm_encodes(velocity),
        "miditok remi_velocity encode": miditok_encodes("remi_velocity"),
        "pianolm base decode": pianolm_decodes(base, every),
        "miditok remi_base decode": miditok_decodes("remi_base", every),
        "pianolm velocity decode": pianolm_decodes(velocity, every),
        "miditok remi_velocity decode": miditok_decodes("remi_velocity", every),
    }
    for name in ("remi_velocity_defaults", "tsd_velocity", "pertok_velocity"):
        starts[f"miditok {name} encode"] = miditok_encodes(name)
    for name in ("remi_base", "remi_velocity"):
        starts[f"miditok {name} decode named"] = miditok_decodes_named(name)
    sides = [Side(name, start) for name, start in starts.items()]
    compared, beside = sides[:8], sides[8:]
    uncollected = [Side(f"{side.name} gc off", side.start, collected=False) for side in compared]
    for _ in range(arguments.repeats):
        for side in compared + uncollected:
            side.measure(jobs, warm_up)
    for side in beside:
        side.measure(jobs, warm_up)
    figures = {side.name: side.figures(notes) for side in compared + beside + uncollected}
    return {
        **{name: ratio(figures, *pair) for name, pair in RATIOS.items()},
        **{f"{name}_gc_off": ratio(figures, *pair, " gc off") for name, pair in RATIOS.items()},
        "files": len(jobs),
        "notes": notes,
        "notes_written": {s.name: notes_written(s.start, jobs) for s in compared if "decode" in s.name},
        "sides": figures,
        "pianolm_milliseconds_per_file": breakdown(base, velocity, jobs, arguments.repeats),
        "velocity_codec": PianoTokenizer.from_pretrained(velocity).codec.config["form"],
        "versions": {name: version(name) for name in ("pianolm", "miditok", "symusic", "numpy")},
    }


def ratio(figures: dict[str, dict[str, Any]], theirs: str, ours: str, ending: str = "") -> float:
    """How many times as long MidiTok takes."""
    return round(
        figures[f"miditok {theirs}{ending}"]["seconds"] / figures[f"pianolm {ours}{ending}"]["seconds"], 2
    )


def markdown(results: dict[str, Any]) -> str:
    """The tables of the README."""
    sides, fit = results["sides"], results["fit"]
    checks = [
        (
            name,
            f"{results[name]:.1f} × ({results[f'{name}_gc_off']:.1f} ×)",
            f"≥ {least:g} ×",
            results[name] >= least,
        )
        for name, least in REQUIRED.items()
    ]
    seconds, gib = fit["seconds"], fit["peak_gib"]
    checks += [
        ("codebook from 4 million cells: s", f"{seconds:.1f}", f"< {FIT_SECONDS:g}", seconds < FIT_SECONDS),
        ("codebook from 4 million cells: peak GiB", f"{gib:.2f}", f"< {FIT_GIB:g}", gib < FIT_GIB),
    ]
    short = [name for name, _, _, reached in checks if not reached]
    verdict = f"Short of what is wanted: {', '.join(short)}." if short else "Every figure is as wanted."
    lines = ["| | measured (garbage collector off) | wanted |", "|---|---|---|"]
    lines += [f"| {name} | {found} | {wanted} |" for name, found, wanted, _ in checks]
    lines += ["", verdict]
    lines += ["", "| side | notes a second | seconds: median (least–most) | passes |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {row['notes_per_second']:,} "
        f"| {row['seconds']:.2f} ({row['seconds_min']:.2f}–{row['seconds_max']:.2f}) | {row['passes']} |"
        for name, row in sides.items()
    ]
    lines += ["", "| step inside pianolm | ms a file |", "|---|---|"]
    lines += [f"| {name} | {ms:.2f} |" for name, ms in results["pianolm_milliseconds_per_file"].items()]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    written = ", ".join(f"{name} {count:,}" for name, count in results["notes_written"].items())
    lines += [
        "",
        f"{results['files']} performances, {results['notes']:,} notes; notes in the files written back: {written}. "
        f"Codebook: {fit['cells_as_played']:,} of {fit['cells']:,} cells as played, "
        f"{fit['distinct_cells']:,} distinct, {fit['codes_per_cell']:.4f} codes a cell by `{fit['method']}`.",
        f"Velocity codec of form `{results['velocity_codec']}`; {versions}.",
    ]
    return "\n".join(lines)


def put_into(readme: Path, text: str) -> None:
    """Replaces what stands between the marks."""
    before, _, rest = readme.read_text("utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    readme.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--asap", type=Path, required=True, help="the folder with metadata.csv in it")
    parser.add_argument("--base", type=Path, required=True, help="tokenizer directory, base mode")
    parser.add_argument("--velocity", type=Path, required=True, help="tokenizer directory, velocity mode")
    parser.add_argument("--fit", type=Path, required=True, help="what fit.py printed")
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--out", type=Path, help="where results.json goes; the README beside it is brought up to date"
    )
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit(
            "OMP_NUM_THREADS is not 1: one thread on both sides is what is measured; set it and start again"
        )
    with tempfile.TemporaryDirectory() as directory:
        results = measure(arguments, Path(directory))
    results["fit"] = json.loads(arguments.fit.read_text())
    text = markdown(results)
    print(text)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
        put_into(arguments.out.with_name("README.md"), text)


if __name__ == "__main__":
    main()
