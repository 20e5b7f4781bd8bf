"""docs/files.md names every file of the artifacts of a chain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .markdown import ROOT

TREE = (ROOT / "docs" / "files.md").read_text("utf-8").partition("## Artifacts")[2].partition("## Runs")[0]
OF_ALL = {"artifact.json", "config.yaml"}


def described() -> Iterator[tuple[str, str]]:
    """A stage and the lines on its artifact."""
    for part in re.split(r"^  (?=\w+/FINGERPRINT)", TREE, flags=re.MULTILINE)[1:]:
        head, _, lines = part.partition("\n")
        for stage in re.findall(r"(\w+)/FINGERPRINT", head):
            yield stage, lines


@pytest.mark.parametrize("stage", ["prepare", "codebook", "velvq", "tokenize", "base", "finetune"])
def test_every_file_of_an_artifact_is_named(stage: str, chain: Path) -> None:
    lines = dict(described())[stage]
    for artifact in (path for path in (chain / "artifacts" / stage).iterdir() if path.is_dir()):
        files = {path.name for path in artifact.iterdir()} - OF_ALL
        assert files
        assert [name for name in files if name not in lines] == []
