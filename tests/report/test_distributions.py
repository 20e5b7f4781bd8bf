"""Panels of distributions."""

from __future__ import annotations

import numpy as np
import pytest

from pianolm.report.distributions import Histograms, draw_histograms


def test_each_panel_shows_the_shares_of_both_sides() -> None:
    counts = {"model": np.array([1, 3, 0, 0]), "human": np.array([0, 2, 2, 0])}
    panels = [
        Histograms("pitch", "distance 0.5", np.arange(5.0), counts),
        *[Histograms("length", "", 2.0 ** np.arange(0, 9, 2), counts)] * 4,
    ]
    drawn = draw_histograms(panels)
    shown = [axes for axes in drawn.axes if axes.get_visible()]
    assert len(shown) == 5
    first = shown[0]
    assert first.patches[0].get_data().values == pytest.approx([0.25, 0.75, 0, 0])
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["model", "human"]
    assert first.get_xlim() == (0, 3), "bins without values are not shown"
    assert (first.get_xscale(), shown[1].get_xscale()) == ("linear", "log")


def test_a_side_without_values_is_drawn_empty() -> None:
    none = np.zeros(3, int)
    drawn = draw_histograms([Histograms("pitch", "", np.arange(4.0), {"model": none, "human": none})])
    assert drawn.axes[0].patches[0].get_data().values.sum() == 0
