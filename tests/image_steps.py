"""The steps of the Dockerfile as a shell script, where no image can be built: `python -m tests.image_steps [PYTHON]`.

An empty directory stands for the image's file system, a virtual environment of PYTHON for that of its base image, and
variables of the environment for build arguments (`TORCH_INDEX`, an index or a folder of packages).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def script(dockerfile: str, image: Path) -> str:
    """A shell script that does what the instructions do, below `image`; those that only describe it are left out."""
    lines = ["set -eux"]
    for line in dockerfile.splitlines():
        word, _, rest = line.partition(" ")
        if word == "ARG":
            name, _, default = rest.partition("=")
            lines.append(f': "${{{name}:={default}}}"')
        elif word == "COPY":
            source, target = rest.split()
            assert source == ".", "a checkout, without what .dockerignore and .gitignore leave out"
            place = shlex.quote(f"{image}{target}")
            files = "git ls-files -z --cached --others --exclude-standard"
            lines.append(f"mkdir -p {place}; {files} | tar -c --null -T - | tar -x -C {place}")
        elif word == "WORKDIR":
            place = shlex.quote(f"{image}{rest}")
            lines.append(f"mkdir -p {place}; cd {place}")
        elif word == "RUN":
            lines.append(rest)
        else:
            assert word in ("", "#", "FROM", "ENTRYPOINT"), f"{line}: no step that this script knows"
    return "\n".join(lines) + "\n"


def run(python: str, root: Path) -> Path:
    """Runs the steps below `root`; returns the environment that they filled."""
    environment = root / "python"
    subprocess.run([python, "-m", "venv", environment], check=True)
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    steps = script((ROOT / "Dockerfile").read_text("utf-8"), root / "image")
    left_out = ("PYTHONPATH", "VIRTUAL_ENV")
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    subprocess.run(["sh", "-c", steps], cwd=ROOT, env={**variables, "PATH": path}, check=True)
    return environment


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run(sys.argv[1] if len(sys.argv) > 1 else sys.executable, Path(folder))
