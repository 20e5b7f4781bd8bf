"""Prepares 1/8, 1/4, 1/2 and all of the files of make.py with two processes, and all of them with one; a row each.

A run has artifacts of its own, which are removed after it. Before that the command is given once more: the time in
which it finds that the artifact can be reused, with all hashes remembered.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from report import headlines, tables

from experiments.results import RESULTS, publish, write_rows

RUNS = ((1, 2), (2, 2), (4, 2), (8, 2), (8, 1))
"""Eighths of the files, processes."""
_POLL_SEC = 0.5


def run(command: list[str], work: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Runs a command; seconds at which it printed lines, and peaks in MB: memory of its process, its work directory."""
    start, lines, peaks = time.perf_counter(), dict[str, float](), {"main": 0.0, "work": 0.0}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watcher = threading.Thread(target=_watch, args=(process, work, peaks))
    watcher.start()
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.match(r"prepare: (runs|built|reuses)", line):
            lines[found[1]] = time.perf_counter() - start
    process.wait()
    lines["end"] = time.perf_counter() - start
    watcher.join()
    if process.returncode:
        sys.exit(f"exit code {process.returncode}: {' '.join(command)}")
    return lines, peaks


def _watch(process: subprocess.Popen[str], work: Path, peaks: dict[str, float]) -> None:
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return
        if peak := re.search(r"VmHWM:\s+(\d+)", status):
            peaks["main"] = max(peaks["main"], int(peak[1]) / 1024)
        peaks["work"] = max(peaks["work"], _megabytes(work / "prepare"))
        time.sleep(_POLL_SEC)


def _megabytes(folder: Path) -> float:
    sizes = []
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # removed a moment ago
            continue
    return sum(sizes) / 1e6


def measure(root: Path, eighths: int, workers: int, scratch: Path) -> dict[str, Any]:
    """One row; see the module."""
    artifacts, run_dir = scratch / "artifacts", scratch / "run"
    command = [
        *(
            sys.executable,
            "-m",
            "pianolm.run",
            "stage=prepare",
            "data=folder",
            f"data.root={root / 'first' / str(eighths)}",
        ),
        *(
            f"compute.workers={workers}",
            f"paths.artifacts={artifacts}",
            f"hydra.run.dir={run_dir}",
            "logger=csv",
        ),
    ]
    times, peaks = run(command, artifacts / ".work")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    artifact = Path(metrics["artifact"])
    files = json.loads((artifact / "artifact.json").read_text())["files"]
    payload = {
        name: digest for name, (_, digest) in files.items() if name != "config.yaml"
    }  # it names the folders
    row = {
        "eighths": eighths,
        "workers": workers,
        "files": metrics["files"],
        "notes": metrics["notes"],
        "seconds": times["end"],
        "seconds_hashing": times["runs"],
        "seconds_preparing": metrics["seconds"],
        "seconds_publishing": times["built"] - times["runs"] - metrics["seconds"],
        "main_peak_mb": peaks["main"],
        "work_peak_mb": peaks["work"],
        "artifact_mb": _megabytes(artifact),
        "payload": hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:16],
    }
    row["seconds_reusing"] = run(command, artifacts / ".work")[0]["end"]
    shutil.rmtree(scratch)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder that make.py filled")
    parser.add_argument("--scratch", type=Path, required=True, help="folder that is made and removed")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for eighths, workers in RUNS:
        rows.append(measure(args.root, eighths, workers, args.scratch))
        print(json.dumps(rows[-1]), flush=True)
        write_rows(args.out / RESULTS, rows)
    publish(args.out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    main()
