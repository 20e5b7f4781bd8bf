"""SLURM: a job that is told that its time ends goes back into the queue, where the same command continues.

Lightning's own requeueing is not used. It saves in the middle of an optimizer step and into the directory of the run,
which is another one in the requeued job; here the state of a whole step is in `paths.work` already.
"""

from __future__ import annotations

import os
import subprocess


def requeue() -> str | None:
    """Puts this SLURM job back into the queue, and says so; None outside one, and in all processes but the first."""
    env = os.environ
    job = env.get("SLURM_JOB_ID")
    if job is None or env.get("SLURM_PROCID", "0") != "0" or env.get("RANK", "0") != "0":
        return None
    if "SLURM_ARRAY_JOB_ID" in env:
        job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        problem = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        problem = str(error)
    if problem:
        return f"SLURM job {job} is not requeued ({problem}); submit it again to continue"
    return f"SLURM job {job} is requeued and continues there"
