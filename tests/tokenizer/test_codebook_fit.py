from __future__ import annotations

import pytest

from pianolm.errors import UserError
from pianolm.tokenizer.codebook_fit import fit_codebook
from pianolm.tokenizer.vocabulary import Vocabulary
from tests.tokenizer.toys import NOTHING, VOCABULARY, random_cells


def test_the_best_method_is_kept_and_scores_are_those_of_encoding() -> None:
    cells = random_cells(5, 20_000, 800)
    small = Vocabulary(l1=64, l2=64, l3=64)
    fit = fit_codebook(cells.sustain, cells.onset, small)
    assert set(fit.codes_per_cell) == {"frequency", "savings", "kmeans"}
    assert fit.codes_per_cell[fit.method] == min(fit.codes_per_cell.values())
    measured = (fit.codebook.encode(cells.sustain, cells.onset) >= 0).sum() / len(cells)
    assert measured == pytest.approx(fit.codes_per_cell[fit.method])


def test_kmeans_learns_patterns_that_occur() -> None:
    cells = random_cells(6, 20_000, 800)
    codebook = fit_codebook(cells.sustain, cells.onset, Vocabulary(l1=32), "kmeans").codebook
    seen = set(zip(cells.sustain.tolist(), cells.onset.tolist(), strict=True))
    assert set(zip(*(a.tolist() for a in codebook.levels[0]), strict=True)) <= seen


def test_no_cells_and_unknown_methods_are_refused() -> None:
    with pytest.raises(UserError, match="no training cells"):
        fit_codebook(NOTHING.sustain, NOTHING.onset, VOCABULARY)
    with pytest.raises(UserError, match="frequency, savings, kmeans"):
        fit_codebook(NOTHING.sustain, NOTHING.onset, VOCABULARY, "magic")
