"""The tour, docs/tour.md: its music, its pictures, and what its code prints."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from docs.site.bars import demo_piece, tokenizers
from pianolm.data.sources.demo import write_piece
from pianolm.data.sources.demo.composer import compose
from pianolm.report.tokens import save_panels

_INDEX, _BAR = 3, 5
"""The invention of `data=demo`, and the bar shown, counted from 0."""
_STEP = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def with_outputs(text: str, root: Path) -> str:
    """The page with what its code prints, in the block below each block of code.

    The blocks run one after another in one namespace, in an empty directory that has docs/tour of the checkout.

    Args:
        text: The page.
        root: The checkout.
    """
    names: dict[str, Any] = {}

    def run(step: re.Match[str]) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(step[1], names)
        return f"```python\n{step[1]}```\n\n```text\n{printed.getvalue()}```"

    with TemporaryDirectory() as folder:
        shutil.copytree(root / "docs" / "tour", Path(folder) / "docs" / "tour")
        with contextlib.chdir(folder):
            return _STEP.sub(run, text)


def write(root: Path) -> None:
    """Writes music, pictures and page of a checkout."""
    folder = root / "docs" / "tour"
    with TemporaryDirectory() as written:
        path = write_piece(compose(0, _INDEX), Path(written), _INDEX)
        shutil.copyfile(path, folder / "invention.mid")
        shutil.copyfile(path.with_name(f"{path.stem}_annotations.txt"), folder / "invention_annotations.txt")
    _, piece = demo_piece(_INDEX)
    first, stop = piece.bar_starts[_BAR : _BAR + 2].tolist()
    save_panels(piece, tokenizers()["velocity"], folder, first, stop - first)
    page = root / "docs" / "tour.md"
    page.write_text(with_outputs(page.read_text("utf-8"), root), "utf-8")
