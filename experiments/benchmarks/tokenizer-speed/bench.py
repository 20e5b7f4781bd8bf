"""Speed of tokenizing and of writing MIDI, pianolm and MidiTok: one process, one thread, the same files.

Every pass goes over all files, reading and writing included. The sides take turns. Each pass starts with a new
tokenizer, warmed up on a file that is not measured, so that nothing is cached from pass to pass.
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
from report import headlines, tables

from experiments.results import Row, publish
from pianolm import PianoTokenizer, Piece
from pianolm.data.sources.asap import collect
from pianolm.errors import UserError
from pianolm.music.beats import read_beats
from pianolm.music.midi import read_midi

try:
    from miditok import REMI, TSD, MusicTokenizer, PerTok, TokenizerConfig
except ImportError:
    sys.exit("MidiTok is not installed; pip install --constraint constraints.txt --editable '.[bench]'")

SEED = 0
SPLITS = ("train", "validation")


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
    """One tokenizer in one direction.

    Attributes:
        name: Package, tokenizer and direction.
        start: Makes a new tokenizer; returns the untimed preparation of a job and the timed action.
        collected: Whether Python's garbage collector runs; MidiTok, which makes many objects, pays for it.
        seconds: Time of each pass.
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
    """The resolution of pianolm: 48 positions per beat, every velocity; no tempo and metre tokens, which cost time."""
    settings: dict[str, Any] = {
        "beat_res": {(0, 2): 48, (2, 8): 12, (8, 32): 4},
        "num_velocities": 127,
        "use_velocities": True,
        "use_tempos": False,
        "use_time_signatures": False,
    }
    return TokenizerConfig(**settings | changes)


def pertok_config() -> TokenizerConfig:
    """A grid of sixteenths and triplets, and micro timing between them."""
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
    """Decodes the ids of each track; they are kept as arrays to spare the garbage collector."""
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
    """Decodes from the token names that MidiTok's encoder keeps beside the ids, which saves looking them up."""

    def start() -> tuple[Ready, Action]:
        tokenizer = MIDITOK[name]()
        return (
            lambda job: (tokenizer.encode(job.midi), job.out),
            lambda given: tokenizer.decode(given[0]).dump_midi(str(given[1])),
        )

    return start


def notes_written(start: Start, jobs: list[Job]) -> int:
    """Notes in the files that a decoder writes, to show that both sides write all the music."""
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
            timed("pattern codes", plain.codebook.encode, cells.sustain, cells.onset)
            timed("tempo", plain.tempo.encode, piece.beats_sec)
            timed("velocity codes", full.codec.encode, cells)
            ids = timed("encode base", plain.encode, piece).ids
            full_ids = timed("encode velocity", full.encode, piece).ids
            back = timed("decode base", plain.decode, ids)
            timed("decode velocity", full.decode, full_ids)
            job.out.unlink(missing_ok=True)
            timed("write MIDI", back.to_midi, job.out)
        spent["assemble"] = spent["encode base"] - spent["pattern codes"] - spent["tempo"]
        for name, seconds in spent.items():
            passes.setdefault(name, []).append(1000 * seconds / len(jobs))
    return {name: round(median(values), 3) for name, values in passes.items()}


def measure(arguments: argparse.Namespace, out: Path) -> list[Row]:
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
    rows: list[Row] = [{"side": side.name, **side.figures(notes)} for side in compared + beside + uncollected]
    for row, side in zip(rows, compared, strict=False):
        if "decode" in side.name:
            row["notes_written"] = notes_written(side.start, jobs)
    steps = breakdown(base, velocity, jobs, arguments.repeats)
    rows += [{"step": name, "milliseconds_per_file": value} for name, value in steps.items()]
    rows.append({"fit": "codebook", **json.loads(arguments.fit.read_text("utf-8"))})
    settings = {
        "files": len(jobs),
        "notes": notes,
        "velocity_codec": PianoTokenizer.from_pretrained(velocity).codec.config["form"],
        "versions": {name: version(name) for name in ("pianolm", "miditok", "symusic", "numpy")},
    }
    return [*rows, {"settings": settings}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--asap", type=Path, required=True, help="the folder with metadata.csv in it")
    parser.add_argument("--base", type=Path, required=True, help="tokenizer directory, base mode")
    parser.add_argument("--velocity", type=Path, required=True, help="tokenizer directory, velocity mode")
    parser.add_argument("--fit", type=Path, required=True, help="what fit.py printed")
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder of results.jsonl, metrics.json and README.md")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit(
            "OMP_NUM_THREADS is not 1: one thread on both sides is what is measured; set it and start again"
        )
    with tempfile.TemporaryDirectory() as directory:
        rows = measure(arguments, Path(directory))
    for lines in tables(rows).values():
        print("\n".join(lines))
    if arguments.out:
        publish(arguments.out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    main()
