"""What a stage is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StageContext:
    """Everything a stage may use.

    Attributes:
        cfg: The resolved configuration as plain containers.
        upstream: Artifact directories by role: cells, codebook, velvq, tokenizer, base, model.
        out: Empty directory to fill; it is published under the artifact's name when the stage returns.
        work: Unfinished training state of exactly this artifact; survives a crash, removed after publishing.
        run_dir: Directory of this run: logs, metrics.json, pictures.
        name: Stage name.
        fingerprint: Of the artifact being built, empty for stages that publish none.
    """

    cfg: Mapping[str, Any]
    upstream: Mapping[str, Path]
    out: Path
    work: Path
    run_dir: Path
    name: str
    fingerprint: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


Metrics = dict[str, float | int | str]
"""What `run` of a stage returns; keys as in the README's table of metrics."""
