"""The lines of docs/other-programs.md run as they stand, and are those of the cards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.dynamic_module_utils

from pianolm import Piece
from pianolm.export.card import TRANSFORMERS
from tests.evaluation.toys import toy_piece
from tests.markdown import ROOT, blocks

(LINES,) = (b.text for b in blocks((ROOT / "docs" / "other-programs.md").read_text("utf-8"), "python"))


def test_the_lines_play_an_export_with_transformers(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    toy_piece(1).to_midi("my.mid")
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(LINES.replace("DIR", str(exported)), names)
    assert names["ids"].shape[1] == names["inputs"]["input_ids"].shape[1] + 200
    new = Piece.from_midi("new.mid")
    assert new.n_beats > Piece.from_midi("my.mid").n_beats


def test_they_are_ten_lines_and_those_of_the_cards() -> None:
    assert TRANSFORMERS.format(path="DIR") == LINES
    assert len([line for line in LINES.splitlines() if line.strip()]) <= 10
