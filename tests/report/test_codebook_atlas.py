"""The picture of the pattern codebook."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pianolm.report.codebook_atlas import count_code_use, save_codebook_atlas
from pianolm.tokenizer.vocabulary import Kind
from tests.report.toys import SMALL, fitted_codebook, picture_size, random_cells


def test_an_atlas_of_few_codes_is_smaller_than_one_of_many(tmp_path: Path) -> None:
    fitted = fitted_codebook()
    use = count_code_use(fitted, random_cells(0, 600, 160))
    assert use.size == SMALL.size
    assert use[SMALL.ids(Kind.PITCH)].sum() == 0
    save_codebook_atlas(fitted, use, tmp_path / "used.png")
    save_codebook_atlas(fitted, np.zeros_like(use), tmp_path / "unused.png")
    width, height = picture_size(tmp_path / "used.png")
    assert width == picture_size(tmp_path / "unused.png")[0] == 1320
    assert height > picture_size(tmp_path / "unused.png")[1] > 300
