"""Mistakes of a new user, and what the terminal says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MISTAKES = {
    "a folder of recordings instead of MIDI": ("stage=prepare", "data=folder", "data.root=recordings"),
    "a misspelt option": ("stage=base", "trainer.max_step=100"),
    "the prompt among the options of generate": ("stage=generate", "generate.prompt=song.mid"),
    "a recording as prompt": ("stage=generate", "prompt=recordings/song.wav"),
    "a folder without a model": ("stage=generate", "upstream.model=recordings"),
    "values out of range": ("stage=generate", "generate.temperature=-1", "generate.beats=many"),
}


def make(scratch: Path) -> Iterator[dict[str, str]]:
    """Makes every mistake in a scratch directory; a row each with command and output."""
    recordings = scratch / "recordings"
    recordings.mkdir(parents=True)
    (recordings / "song.wav").write_bytes(b"RIFF$\0\0\0WAVEfmt " + bytes(60))
    root = str(Path(__file__).resolve().parents[2])
    for name, command in MISTAKES.items():
        done = subprocess.run(
            [sys.executable, "-m", "pianolm.run", *command],
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
        )
        said = done.stderr.strip().splitlines()
        is_told = 1 <= len(said) <= 2 and all(line.startswith("pianolm: ") for line in said)
        problem = (
            "" if done.returncode == 1 and is_told else f"exit code {done.returncode}, {len(said)} lines"
        )
        text = (done.stdout + done.stderr).replace(f"{scratch}/", "").strip()
        yield {"mistake": name, "command": " ".join(command), "said": text, "problem": problem}
