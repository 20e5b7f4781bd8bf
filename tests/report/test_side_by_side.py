"""Piano rolls of two sides in a row."""

from __future__ import annotations

from pianolm.report.side_by_side import draw_side_by_side
from tests.evaluation.toys import toy_piece


def test_a_row_has_both_sides_on_one_scale() -> None:
    rows = {f"song {i}, C major": {"model": toy_piece(i), "human": toy_piece(i + 9)} for i in range(3)}
    drawn = draw_side_by_side(rows, 4, [4, 3, 4])
    assert len(drawn.axes) == 6
    left, right = drawn.axes[2:4]
    assert [axes.get_title("left") for axes in (left, right)] == [
        "song 1, C major: model",
        "song 1, C major: human",
    ]
    assert left.get_ylim() == right.get_ylim()
    beats = max(piece.n_beats for sides in rows.values() for piece in sides.values())
    assert left.get_xlim() == (0, beats)
    notes, bars = left.collections
    assert len(notes.get_paths()) == toy_piece(1).frame_notes.size
    assert [path.vertices[0][0] for path in bars.get_paths()] == list(range(0, beats + 1, 3))
