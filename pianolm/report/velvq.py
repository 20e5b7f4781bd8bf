"""Pictures of a velocity codec: how its codes are used, what they mean, and the cells that it gets wrong.

They know a codec by `encode` and `decode` alone, so that codecs of any form and size can be compared by eye.

Shapes: C cells, S segments, K codes, G = 4 groups of cells by their number of segments (1, 2, 3, 4 and more),
V = 128 velocities.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import FRAME_MASK, Cells, segment_lengths, segment_starts
from pianolm.report.piano_roll import figure
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.errors import CLASSES, perplexity

GROUP_NAMES = ("1 segment", "2 segments", "3 segments", "4 and more")
PERCENTILES = (5, 25, 50, 75, 95, 99)
"""Of the error in a group of cells: where its typical cells are taken from."""
WORST = 12

_DPI = 110
_V = 128
_GROUP_COLOURS = ("#0072B2", "#009E73", "#E69F00", "#CC5577")
_RISING, _FALLING, _PLAYED, _DECODED = "#0072B2", "#D55E00", "#1b1b1b", "#0072B2"
_WRONG, _PALE, _LINE, _GREY = "#f2b8a0", "#c4cbd2", "#c9c9c9", "#6b6b6b"
_SEARCHED = 400  # of the worst cells, among which different ones are looked for
_HALF = FRAMES // 2
_ROW_IN = 1.55


def segment_group(segment_count: NDArray[np.int64]) -> NDArray[np.int64]:
    """[C] group 0 … 3 of cells with so many segments."""
    return np.minimum(segment_count, len(CLASSES)) - 1


def cell_errors(cells: Cells, decoded: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[C] mean |decoded − played| over the active frames of each cell, in MIDI velocities; `decoded` is [S]."""
    if not len(cells):
        return np.zeros(0, np.float32)
    length = segment_lengths(cells.sustain, cells.onset)
    error = np.abs(cells.segment_velocity.astype(np.int64) - decoded) * length
    first = cells.segment_offset[:-1]
    return (np.add.reduceat(error, first) / np.add.reduceat(length, first)).astype(np.float32)


def save_code_usage(count_GK: NDArray[np.int64], path: str | Path) -> None:
    """Draws how often codes are used: most used first, and by their number, for each number of segments.

    Args:
        count_GK: [G, K] cells by group and code.
        path: PNG to write.
    """
    total_K, codes = count_GK.sum(axis=0), count_GK.shape[1]
    cells = max(int(total_K.sum()), 1)
    drawn = figure(12, 6.4)
    ranked, *panels = drawn.subplot_mosaic(
        [["ranked", name] for name in GROUP_NAMES], width_ratios=(1.0, 1.25)
    ).values()
    drawn.suptitle(
        f"{np.count_nonzero(total_K)} of {codes} velocity codes used, perplexity {perplexity(total_K):.0f}; "
        f"{total_K.sum():,} cells",
        size=12,
        x=0.01,
        ha="left",
    )
    for counts, colour, label, width in (
        (total_K, _PLAYED, "all cells", 2.2),
        *((counts, c, n, 1.4) for counts, c, n in zip(count_GK, _GROUP_COLOURS, GROUP_NAMES, strict=True)),
    ):
        used = np.sort(counts[counts > 0])[::-1]
        if used.size:
            share = np.append(used, used[-1]) / used.sum()
            ranked.step(
                np.arange(share.size), share, where="post", color=colour, linewidth=width, label=label
            )
    if total_K.any():
        ranked.set_yscale("log")
        ranked.legend(frameon=False, fontsize=9)
    ranked.axhline(1 / codes, color=_GREY, linewidth=0.8, linestyle=":")
    ranked.annotate(
        "all codes equally",
        (codes, 1 / codes),
        (-3, 3),
        textcoords="offset points",
        size=8,
        color=_GREY,
        ha="right",
    )
    ranked.set(xlim=(0, codes), xlabel="codes, most used first", ylabel="share of the group's cells")
    ranked.grid(color="0.92")
    for panel, counts, colour, name in zip(panels, count_GK, _GROUP_COLOURS, GROUP_NAMES, strict=True):
        within = max(int(counts.sum()), 1)
        panel.stairs(counts / within, np.arange(codes + 1) - 0.5, fill=True, color=colour)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda share, _: _percent(share)))
        _plain(panel)
        panel.set(xlim=(-0.5, codes - 0.5), ylim=(0, None) if counts.any() else (0, 1))
        said = f"{_percent(counts.sum() / cells)} of cells, {np.count_nonzero(counts)} of {codes} codes used"
        title = f"{said}, perplexity {perplexity(counts):.0f}" if counts.any() else "no cells"
        panel.set_title(f"{name}: {title}", loc="left", size=9)
        panel.tick_params(labelbottom=panel is panels[-1])
    panels[-1].set_xlabel("velocity code")
    drawn.savefig(path, dpi=_DPI)


# The atlas


def save_code_atlas(
    codec: VelocityCodec, count_GK: NDArray[np.int64], pair_VV: NDArray[np.int64], path: str | Path
) -> None:
    """Draws what every code says in a cell of one note and of two, and where two notes are coded how well.

    The one note lasts a whole beat, the two last half a beat each.

    Args:
        codec: Of any form.
        count_GK: [G, K] cells by group and code: codes without cells of a group are drawn pale there.
        pair_VV: [V, V] cells of two segments by their velocities, first and second.
        path: PNG to write.
    """
    one_K = _say(codec, [0])[:, 0]
    two_K2 = _say(codec, [0, _HALF])
    drawn = figure(13, 11.6)
    rows = drawn.subplot_mosaic(
        [["one", "one"], ["two", "two"], ["codes", "errors"]], height_ratios=(1.0, 1.2, 2.9)
    )
    drawn.suptitle(f"What {codec.codebook_size} velocity codes mean", size=13, x=0.01, ha="left")
    _draw_one(rows["one"], one_K, count_GK[0])
    _draw_two(rows["two"], two_K2, count_GK[1])
    _draw_plane(drawn, rows["codes"], two_K2, count_GK[1], pair_VV)
    _draw_errors(drawn, rows["errors"], codec, pair_VV)
    drawn.savefig(path, dpi=_DPI)


def _pattern(starts: list[int], cells: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Sustain and onset masks of so many equal cells that sound throughout and are struck in these frames."""
    onset = np.uint64(sum(1 << start for start in starts))
    return np.full(cells, FRAME_MASK), np.full(cells, onset)


def _say(codec: VelocityCodec, starts: list[int]) -> NDArray[np.int64]:
    """[K, n] velocities that each code gives n notes struck in these frames."""
    codes = np.arange(codec.codebook_size)
    decoded = codec.decode(codes, *_pattern(starts, codes.size))
    return decoded.reshape(-1, len(starts)).astype(np.int64)


def _draw_one(axes: Axes, one_K: NDArray[np.int64], count_K: NDArray[np.int64]) -> None:
    code, used = np.arange(one_K.size), count_K > 0
    size = _marker(one_K.size)
    axes.scatter(code[~used], one_K[~used], s=0.5 * size, color=_PALE, linewidths=0, label="not used")
    axes.scatter(code[used], one_K[used], s=size, color=_GROUP_COLOURS[0], linewidths=0, label="used")
    said = np.unique(one_K[used]).size
    axes.set_title(
        f"One note: {used.sum()} codes used say {said} velocities; pale: not used for one note",
        loc="left",
        size=10,
    )
    _code_axes(axes, one_K.size)


def _draw_two(axes: Axes, two_K2: NDArray[np.int64], count_K: NDArray[np.int64]) -> None:
    code, used = np.arange(len(two_K2)), count_K > 0
    first, second = two_K2.T
    colour = np.where(
        ~used, _PALE, np.where(second > first, _RISING, np.where(second < first, _FALLING, _GREY))
    )
    lines = np.stack([np.stack([code, first], 1), np.stack([code, second], 1)], 1)
    width = float(np.clip(500 / code.size, 0.5, 3.0))
    axes.add_collection(LineCollection(list(lines), colors=colour.tolist(), linewidths=width))
    axes.scatter(
        code, first, s=0.8 * _marker(code.size), color=np.where(used, _PLAYED, _PALE), linewidths=0, zorder=3
    )
    axes.set_title("Two notes: from the first (dot) to the second (end of the line)", loc="left", size=10)
    marks = [Line2D([], [], color=c, linewidth=2) for c in (_RISING, _FALLING)]
    axes.legend(marks, ["second louder", "second softer"], frameon=False, fontsize=9, loc="upper left")
    _code_axes(axes, code.size)
    axes.set_xlabel("velocity code")


def _draw_plane(
    drawn: Figure,
    axes: Axes,
    two_K2: NDArray[np.int64],
    count_K: NDArray[np.int64],
    pair_VV: NDArray[np.int64],
) -> None:
    used = count_K > 0
    edges = np.arange(_V + 1) - 0.5
    if pair_VV.any():
        shown = axes.pcolormesh(
            edges,
            edges,
            np.ma.masked_equal(pair_VV.T, 0),
            cmap="Greys",
            norm=LogNorm(0.5, 4 * max(pair_VV.max(), 2)),
        )
        bar = drawn.colorbar(shown, ax=axes, shrink=0.8, pad=0.02, label="cells")
        bar.ax.set_ylim(1, max(pair_VV.max(), 2))
    size = 2.2 * _marker(len(two_K2))
    for which, face, label in ((used, _FALLING, "code"), (~used, "white", "code not used for two segments")):
        if which.any():
            first, second = two_K2[which].T
            axes.scatter(first, second, s=size, color=face, edgecolors=_FALLING, linewidths=0.6, label=label)
    axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=9, loc="upper left")
    axes.set_title(f"Where the codes lie among {pair_VV.sum():,} cells of two segments", loc="left", size=10)
    _velocity_plane(axes)


def _draw_errors(drawn: Figure, axes: Axes, codec: VelocityCodec, pair_VV: NDArray[np.int64]) -> None:
    pair = np.stack(np.meshgrid(np.arange(1, _V), np.arange(1, _V), indexing="ij"), axis=-1).reshape(-1, 2)
    sustain, onset = _pattern([0, _HALF], len(pair))
    no_place = np.zeros(len(pair), np.int32)
    cells = Cells(no_place, no_place.astype(np.uint8), sustain, onset, pair.ravel().astype(np.uint8), 1)
    error = cell_errors(cells, codec.decode(codec.encode(cells), sustain, onset)).reshape(_V - 1, _V - 1)
    inside = _most(pair_VV)[1:, 1:]
    # The colours end where the data does: far from it any error is possible and none matters.
    top = max(float(error[inside].max()) if inside.any() else float(error.max()), 1.0)
    edges = np.arange(_V) + 0.5
    shown = axes.pcolormesh(edges, edges, error.T, cmap="YlOrRd", vmin=0, vmax=top)
    drawn.colorbar(shown, ax=axes, shrink=0.8, pad=0.02, label="error a frame", extend="max")
    if inside.any() and not inside.all():
        at = np.arange(1, _V)
        axes.contour(at, at, inside.T.astype(float), levels=[0.5], colors=_PLAYED, linewidths=1.0)
    axes.set_title(
        "Error of two notes of half a beat; 99 % of the data lie inside the line", loc="left", size=10
    )
    _velocity_plane(axes)


def _most(pair_VV: NDArray[np.int64], share: float = 0.99, reach: int = 6) -> NDArray[np.bool_]:
    """[V, V] the densest region that holds this share of the pairs, each spread over its neighbourhood."""
    padded = np.pad(pair_VV, reach + 1)[:-1, :-1].cumsum(axis=0).cumsum(axis=1)
    width = 2 * reach + 1
    spread = (
        padded[width:, width:] - padded[:-width, width:] - padded[width:, :-width] + padded[:-width, :-width]
    )
    order = np.argsort(-spread, axis=None, kind="stable")
    held = np.cumsum(pair_VV.ravel()[order])
    inside = np.zeros(spread.size, bool)
    inside[order[: int(np.searchsorted(held, share * held[-1])) + 1]] = held[-1] > 0
    return inside.reshape(spread.shape)


def _code_axes(axes: Axes, codes: int) -> None:
    axes.set(xlim=(-0.01 * codes - 0.5, 1.01 * codes - 0.5), ylim=(0, _V), yticks=range(0, _V + 1, 32))
    axes.set_ylabel("velocity")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    _plain(axes)


def _velocity_plane(axes: Axes) -> None:
    axes.set(
        xlim=(0, _V), ylim=(0, _V), aspect="equal", xticks=range(0, _V + 1, 32), yticks=range(0, _V + 1, 32)
    )
    axes.set(xlabel="velocity of the first", ylabel="velocity of the second")
    axes.plot([0, _V], [0, _V], color=_LINE, linewidth=0.6, zorder=0)
    _plain(axes)


def _marker(codes: int) -> float:
    """Area of a code's mark: smaller where there are many."""
    return float(np.clip(4000 / codes, 3, 40))


# The cells


def save_worst_cells(
    codec: VelocityCodec,
    take: Callable[[NDArray[np.int64]], Cells],
    error_C: NDArray[np.floating],
    group_C: NDArray[np.integer],
    path: str | Path,
) -> None:
    """Draws cells as they were played and as they are decoded: the worst, and typical ones by segments.

    Of equal cells among the worst one is drawn. The typical cells of a group lie at `PERCENTILES` of its errors.

    Args:
        codec: Of any form.
        take: Cells by their indices.
        error_C: [C] error of each cell, as `cell_errors` gives it.
        group_C: [C] group of each cell, as `segment_group` gives it.
        path: PNG to write.
    """
    columns = len(PERCENTILES)
    worst = _worst(take, error_C)
    rows_of_worst = max(-(-worst.size // columns), 1)
    groups = [np.flatnonzero(group_C == g) for g in range(len(CLASSES))]
    drawn = figure(13.2, 0.65 + _ROW_IN * (rows_of_worst + len(groups)))
    drawn.set_layout_engine("none")
    height = drawn.get_figheight()
    drawn.text(0.015, 1 - 0.15 / height, "Velocities as played and as decoded", size=13, va="top")
    heading = "error: mean |decoded − played| over the frames that sound in a cell"
    drawn.text(0.31, 1 - 0.18 / height, heading, size=10, va="top", color=_GREY)
    drawn.legend(
        [
            Line2D([], [], color=_PLAYED, linewidth=3),
            Line2D([], [], color=_DECODED, linewidth=1.6),
            Patch(color=_WRONG),
        ],
        ["played", "decoded", "error"],
        loc="upper right",
        bbox_to_anchor=(0.995, 1 - 0.06 / height),
        ncols=3,
        frameon=False,
        fontsize=10,
    )
    above = height - 0.55
    for row in range(rows_of_worst):
        part = worst[row * columns : (row + 1) * columns]
        label = f"the worst of\n{error_C.size:,}" if row == 0 else ""
        above = _draw_cells(drawn, above, codec, take(part), error_C[part], label, [""] * part.size)
    for name, members in zip(GROUP_NAMES, groups, strict=True):
        chosen, marks = _typical(members, error_C)
        said = f"{name}\n{_percent(members.size / max(error_C.size, 1))}\nof cells"
        above = _draw_cells(drawn, above, codec, take(chosen), error_C[chosen], said, marks)
    drawn.savefig(path, dpi=_DPI)


def _worst(take: Callable[[NDArray[np.int64]], Cells], error_C: NDArray[np.floating]) -> NDArray[np.int64]:
    """Indices of the cells with the largest errors, no two of them equal."""
    order = np.argsort(-error_C, kind="stable")[:_SEARCHED]
    cells = take(order)
    seen: dict[tuple[int, int, bytes], int] = {}
    for i, index in enumerate(order.tolist()):
        low, high = cells.segment_offset[i : i + 2]
        key = (int(cells.sustain[i]), int(cells.onset[i]), cells.segment_velocity[low:high].tobytes())
        seen.setdefault(key, index)
    return np.array(list(seen.values())[:WORST], np.int64)


def _typical(
    members: NDArray[np.int64], error_C: NDArray[np.floating]
) -> tuple[NDArray[np.int64], list[str]]:
    """Members at the percentiles of their errors, and these; each once where there are few."""
    if not members.size:
        return members, []
    order = members[np.argsort(error_C[members], kind="stable")]
    at = [int(p / 100 * (members.size - 1) + 0.5) for p in PERCENTILES]
    kept = dict(zip(at, PERCENTILES, strict=True))
    return order[list(kept)], ["median" if p == 50 else f"{p}th pct." for p in kept.values()]


def _draw_cells(
    drawn: Figure,
    above: float,
    codec: VelocityCodec,
    cells: Cells,
    error_C: NDArray[np.floating],
    label: str,
    marks: list[str],
) -> float:
    """A row of cells below a height in inches, named on its left; returns the height below it."""
    left, wide, gap, head, high = 1.4, 1.84, 0.11, 0.26, _ROW_IN - 0.43
    width, height = drawn.get_size_inches()
    bottom = above - head - high
    drawn.text(0.2 / width, (bottom + high) / height, label, size=10, va="top", linespacing=1.4)
    codes = codec.encode(cells)
    decoded = codec.decode(codes, cells.sustain, cells.onset)
    for i, (code, error, mark) in enumerate(zip(codes.tolist(), error_C.tolist(), marks, strict=True)):
        box = (left + i * (wide + gap), bottom, wide, high)
        axes = drawn.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        part = slice(int(cells.segment_offset[i]), int(cells.segment_offset[i + 1]))
        _draw_cell(axes, cells, i, cells.segment_velocity[part].astype(int), decoded[part].astype(int))
        axes.set_title(f"error {error:.1f}", loc="left", size=9, weight="bold", pad=3)
        axes.set_title(f"{mark}   code {code}".strip(), loc="right", size=8, color=_GREY, pad=3)
        axes.tick_params(labelleft=i == 0)
    return above - _ROW_IN


def _draw_cell(axes: Axes, cells: Cells, i: int, played: NDArray[np.int_], decoded: NDArray[np.int_]) -> None:
    """One cell: a step a segment for both, the area between them, and a mark where a key is struck."""
    starts = int(segment_starts(cells.sustain, cells.onset)[i])
    first = np.array([f for f in range(FRAMES) if starts >> f & 1])
    end = first + segment_lengths(cells.sustain[i : i + 1], cells.onset[i : i + 1])
    struck = [f for f in first.tolist() if int(cells.onset[i]) >> f & 1]
    axes.vlines(range(0, FRAMES + 1, 6), 0, _V, color="0.93", linewidth=0.6, zorder=0)
    axes.vlines(_HALF, 0, _V, color="0.85", linewidth=0.8, zorder=0)
    corners = [
        [(a, p), (b, p), (b, d), (a, d)] for a, b, p, d in zip(first, end, played, decoded, strict=True)
    ]
    axes.add_collection(PolyCollection(corners, facecolors=_WRONG, linewidths=0, zorder=1))
    axes.hlines(played, first, end, color=_PLAYED, linewidth=3.0, zorder=2)
    axes.hlines(decoded, first, end, color=_DECODED, linewidth=1.6, zorder=3)
    axes.vlines(struck, 0, 9, color=_PLAYED, linewidth=1.2, zorder=2)
    axes.set(xlim=(-0.5, FRAMES + 0.5), ylim=(0, _V), xticks=[], yticks=(0, 32, 64, 96, 128))
    axes.tick_params(labelsize=7, length=2)
    axes.grid(axis="y", color="0.93", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_color(_LINE)


# Small things


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _percent(share: float) -> str:
    """Of a share between 0 and 1."""
    return f"{100 * float(share):.3g} %"
