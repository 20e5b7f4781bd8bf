"""A training process of rank above 0: `python -m pianolm.pipeline.worker job.json`.

It takes no lock, builds nothing upstream and publishes nothing.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

from pianolm.pipeline.launch import context_from_json


def main(job: Path) -> None:
    """Runs the stage of a job file; what it would publish is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        context = context_from_json(job.read_text(), Path(scratch))
        importlib.import_module(f"pianolm.stages.{context.name}").run(context)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
