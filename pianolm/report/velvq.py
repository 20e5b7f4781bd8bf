"""Pictures of a velocity codec: how its codes are used and what they mean.

They use `encode` and `decode` alone, so that codecs of any form and size can be compared.

Shapes: C cells, S segments, K codes, G = 4 groups of cells by their number of segments (1, 2, 3, 4 and more),
V = 128 velocities.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import FRAME_MASK, Cells, segment_lengths
from pianolm.report.patterns import GREY, LINE_COLOUR
from pianolm.report.piano_roll import figure
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.errors import CLASSES, perplexity

GROUP_NAMES = ("1 segment", "2 segments", "3 segments", "4 and more")
_DPI = 110
_V = 128
_GROUP_COLOURS = ("#0072B2", "#009E73", "#E69F00", "#CC5577")
_RISING, _FALLING, _DARK = "#0072B2", "#D55E00", "#1b1b1b"
_UNUSED = "#c4cbd2"
_HALF = FRAMES // 2


def segment_group(segment_count: NDArray[np.int64]) -> NDArray[np.int64]:
    """[C] group 0 … 3 of cells by their number of segments [C]."""
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
    """Draws how often codes are used, most used first and by code number, for each number of segments.

    Args:
        count_GK: [G, K] cells by group and code.
        path: PNG to write.
    """
    total_K, codes = count_GK.sum(axis=0), count_GK.shape[1]
    picture = figure(12, 6.4)
    ranked, *panels = picture.subplot_mosaic(
        [["ranked", name] for name in GROUP_NAMES], width_ratios=(1.0, 1.25)
    ).values()
    title = (
        f"{np.count_nonzero(total_K)} of {codes} velocity codes used, perplexity {perplexity(total_K):.0f}; "
        f"{total_K.sum():,} cells"
    )
    picture.suptitle(title, size=12, x=0.01, ha="left")
    _draw_ranked_use(ranked, count_GK)
    for panel, count_K, colour, name in zip(panels, count_GK, _GROUP_COLOURS, GROUP_NAMES, strict=True):
        _draw_group_use(panel, count_K, colour, name, max(int(total_K.sum()), 1))
        panel.tick_params(labelbottom=panel is panels[-1])
    panels[-1].set_xlabel("velocity code")
    picture.savefig(path, dpi=_DPI)


def _draw_ranked_use(axes: Axes, count_GK: NDArray[np.int64]) -> None:
    """Share of the cells by rank of the code, for all cells and for each group."""
    total_K, codes = count_GK.sum(axis=0), count_GK.shape[1]
    for count_K, colour, label, width in (
        (total_K, _DARK, "all cells", 2.2),
        *((count_K, c, n, 1.4) for count_K, c, n in zip(count_GK, _GROUP_COLOURS, GROUP_NAMES, strict=True)),
    ):
        used = np.sort(count_K[count_K > 0])[::-1]
        if used.size:
            share = np.append(used, used[-1]) / used.sum()
            axes.step(np.arange(share.size), share, where="post", color=colour, linewidth=width, label=label)
    if total_K.any():
        axes.set_yscale("log")
        axes.legend(frameon=False, fontsize=9)
    axes.axhline(1 / codes, color=GREY, linewidth=0.8, linestyle=":")
    note = axes.annotate("all codes equally", (codes, 1 / codes), (-3, 3), textcoords="offset points")
    note.set(size=8, color=GREY, ha="right")
    axes.set(xlim=(0, codes), xlabel="codes, most used first", ylabel="share of the group's cells")
    axes.grid(color="0.92")


def _draw_group_use(axes: Axes, count_K: NDArray[np.int64], colour: str, name: str, n_cells: int) -> None:
    """Share of a group's cells by code number."""
    codes = count_K.size
    axes.stairs(count_K / max(int(count_K.sum()), 1), np.arange(codes + 1) - 0.5, fill=True, color=colour)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: percent(share)))
    plain_axes(axes)
    axes.set(xlim=(-0.5, codes - 0.5), ylim=(0, None) if count_K.any() else (0, 1))
    use = f"{percent(count_K.sum() / n_cells)} of cells, {np.count_nonzero(count_K)} of {codes} codes used"
    title = f"{use}, perplexity {perplexity(count_K):.0f}" if count_K.any() else "no cells"
    axes.set_title(f"{name}: {title}", loc="left", size=9)


def save_code_atlas(
    codec: VelocityCodec, count_GK: NDArray[np.int64], pair_VV: NDArray[np.int64], path: str | Path
) -> None:
    """Draws the velocities of every code in a cell of one note and of two, and the error of pairs of velocities.

    The one note lasts a whole beat, the two last half a beat each.

    Args:
        codec: A codec of any form.
        count_GK: [G, K] cells by group and code; a code without cells of a group is picture pale there.
        pair_VV: [V, V] cells of two segments by their velocities, first and second.
        path: PNG to write.
    """
    one_K = code_velocities(codec, [0])[:, 0]
    two_K2 = code_velocities(codec, [0, _HALF])
    picture = figure(13, 11.6)
    rows = picture.subplot_mosaic(
        [["one", "one"], ["two", "two"], ["codes", "errors"]], height_ratios=(1.0, 1.2, 2.9)
    )
    picture.suptitle(f"What {codec.codebook_size} velocity codes mean", size=13, x=0.01, ha="left")
    _draw_one(rows["one"], one_K, count_GK[0])
    _draw_two(rows["two"], two_K2, count_GK[1])
    _draw_plane(picture, rows["codes"], two_K2, count_GK[1], pair_VV)
    _draw_errors(picture, rows["errors"], codec, pair_VV)
    picture.savefig(path, dpi=_DPI)


def _pattern(starts: list[int], cells: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Sustain and onset masks of `cells` equal cells that sound throughout, with onsets in the frames `starts`."""
    onset = np.uint64(sum(1 << start for start in starts))
    return np.full(cells, FRAME_MASK), np.full(cells, onset)


def code_velocities(codec: VelocityCodec, starts: list[int]) -> NDArray[np.int64]:
    """[K, n] velocities that each code decodes to in a cell of n notes with onsets in the frames `starts`."""
    codes = np.arange(codec.codebook_size)
    decoded = codec.decode(codes, *_pattern(starts, codes.size))
    return decoded.reshape(-1, len(starts)).astype(np.int64)


def _draw_one(axes: Axes, one_K: NDArray[np.int64], count_K: NDArray[np.int64]) -> None:
    code, used = np.arange(one_K.size), count_K > 0
    size = _marker(one_K.size)
    axes.scatter(code[~used], one_K[~used], s=0.5 * size, color=_UNUSED, linewidths=0, label="not used")
    axes.scatter(code[used], one_K[used], s=size, color=_GROUP_COLOURS[0], linewidths=0, label="used")
    velocities = np.unique(one_K[used]).size
    axes.set_title(
        f"One note: {used.sum()} codes used give {velocities} velocities; pale: not used for one note",
        loc="left",
        size=10,
    )
    _code_axes(axes, one_K.size)


def _draw_two(axes: Axes, two_K2: NDArray[np.int64], count_K: NDArray[np.int64]) -> None:
    code, used = np.arange(len(two_K2)), count_K > 0
    first, second = two_K2.T
    colour = np.where(
        ~used, _UNUSED, np.where(second > first, _RISING, np.where(second < first, _FALLING, GREY))
    )
    lines = np.stack([np.stack([code, first], 1), np.stack([code, second], 1)], 1)
    width = float(np.clip(500 / code.size, 0.5, 3.0))
    axes.add_collection(LineCollection(list(lines), colors=colour.tolist(), linewidths=width))
    axes.scatter(
        code, first, s=0.8 * _marker(code.size), color=np.where(used, _DARK, _UNUSED), linewidths=0, zorder=3
    )
    axes.set_title("Two notes: from the first (dot) to the second (end of the line)", loc="left", size=10)
    marks = [Line2D([], [], color=c, linewidth=2) for c in (_RISING, _FALLING)]
    axes.legend(marks, ["second louder", "second softer"], frameon=False, fontsize=9, loc="upper left")
    _code_axes(axes, code.size)
    axes.set_xlabel("velocity code")


def _draw_plane(
    picture: Figure,
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
        bar = picture.colorbar(shown, ax=axes, shrink=0.8, pad=0.02, label="cells")
        bar.ax.set_ylim(1, max(pair_VV.max(), 2))
    size = 2.2 * _marker(len(two_K2))
    for which, face, label in ((used, _FALLING, "code"), (~used, "white", "code not used for two segments")):
        if which.any():
            first, second = two_K2[which].T
            axes.scatter(first, second, s=size, color=face, edgecolors=_FALLING, linewidths=0.6, label=label)
    axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=9, loc="upper left")
    axes.set_title(f"The codes among {pair_VV.sum():,} cells of two segments", loc="left", size=10)
    _velocity_plane(axes)


def _draw_errors(picture: Figure, axes: Axes, codec: VelocityCodec, pair_VV: NDArray[np.int64]) -> None:
    pair = np.stack(np.meshgrid(np.arange(1, _V), np.arange(1, _V), indexing="ij"), axis=-1).reshape(-1, 2)
    sustain, onset = _pattern([0, _HALF], len(pair))
    position = np.zeros(len(pair), np.int32)
    cells = Cells(position, position.astype(np.uint8), sustain, onset, pair.ravel().astype(np.uint8), 1)
    error = cell_errors(cells, codec.decode(codec.encode(cells), sustain, onset)).reshape(_V - 1, _V - 1)
    inside = densest_region(pair_VV)[1:, 1:]
    # The largest colour is the largest error inside the line: pairs outside it hardly occur.
    top = max(float(error[inside].max()) if inside.any() else float(error.max()), 1.0)
    edges = np.arange(_V) + 0.5
    shown = axes.pcolormesh(edges, edges, error.T, cmap="YlOrRd", vmin=0, vmax=top)
    picture.colorbar(shown, ax=axes, shrink=0.8, pad=0.02, label="error a frame", extend="max")
    if inside.any() and not inside.all():
        at = np.arange(1, _V)
        axes.contour(at, at, inside.T.astype(float), levels=[0.5], colors=_DARK, linewidths=1.0)
    axes.set_title(
        "Error of two notes of half a beat; 99 % of the data are inside the line", loc="left", size=10
    )
    _velocity_plane(axes)


def densest_region(pair_VV: NDArray[np.int64], share: float = 0.99, radius: int = 6) -> NDArray[np.bool_]:
    """[V, V] the densest region that holds `share` of the pairs; density is the sum over a square of `radius`."""
    padded = np.pad(pair_VV, radius + 1)[:-1, :-1].cumsum(axis=0).cumsum(axis=1)
    width = 2 * radius + 1
    density = (
        padded[width:, width:] - padded[:-width, width:] - padded[width:, :-width] + padded[:-width, :-width]
    )
    order = np.argsort(-density, axis=None, kind="stable")
    cumulative = np.cumsum(pair_VV.ravel()[order])
    inside = np.zeros(density.size, bool)
    inside[order[: int(np.searchsorted(cumulative, share * cumulative[-1])) + 1]] = cumulative[-1] > 0
    return inside.reshape(density.shape)


def _code_axes(axes: Axes, codes: int) -> None:
    axes.set(xlim=(-0.01 * codes - 0.5, 1.01 * codes - 0.5), ylim=(0, _V), yticks=range(0, _V + 1, 32))
    axes.set_ylabel("velocity")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    plain_axes(axes)


def _velocity_plane(axes: Axes) -> None:
    axes.set(
        xlim=(0, _V), ylim=(0, _V), aspect="equal", xticks=range(0, _V + 1, 32), yticks=range(0, _V + 1, 32)
    )
    axes.set(xlabel="velocity of the first", ylabel="velocity of the second")
    axes.plot([0, _V], [0, _V], color=LINE_COLOUR, linewidth=0.6, zorder=0)
    plain_axes(axes)


def _marker(codes: int) -> float:
    """Area of a code's marker, smaller in large codebooks."""
    return float(np.clip(4000 / codes, 3, 40))


def plain_axes(axes: Axes) -> None:
    """Hides the upper and right frame line."""
    axes.spines[["top", "right"]].set_visible(False)


def percent(share: float) -> str:
    """A share between 0 and 1 in percent."""
    return f"{100 * float(share):.3g} %"
