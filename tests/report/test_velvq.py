"""Pictures of velocity codecs of any form and size, with much data and little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pianolm.music.cells import FRAMES, Cells, frame_velocity, frames_to_cells, resolve_collisions
from pianolm.report.velvq import (
    cell_errors,
    code_velocities,
    densest_region,
    save_code_atlas,
    save_code_usage,
    segment_group,
)
from pianolm.report.velvq_cells import save_worst_cells
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.segment import SegmentCodec


class Levels:
    """A codec with `encode` and `decode` alone: a code is the velocity of the whole cell."""

    def __init__(self, codebook_size: int) -> None:
        self.codebook_size = codebook_size
        self.levels = np.linspace(1, 127, codebook_size).round().astype(np.uint8)

    def encode(self, cells: Cells) -> np.ndarray:
        first = cells.segment_velocity[cells.segment_offset[:-1]].astype(int)
        return np.abs(first[:, None] - self.levels.astype(int)).argmin(axis=1)

    def decode(self, codes: np.ndarray, sustain: np.ndarray, onset: np.ndarray) -> np.ndarray:
        return np.repeat(self.levels[codes], np.bitwise_count(onset | (sustain & np.uint64(1))))


def segment_codec(codebook_size: int, slots: int = 3) -> SegmentCodec:
    rng = np.random.default_rng(0)
    return SegmentCodec.from_tables(
        [
            np.sort(rng.integers(1, 128, (codebook_size, n)), axis=0).astype(np.uint8)
            for n in range(1, slots + 1)
        ]
    )


def random_cells(notes: int = 400, beats: int = 32) -> Cells:
    rng = np.random.default_rng(1)
    onset = rng.integers(0, beats * FRAMES - 1, notes)
    frames, _ = resolve_collisions(
        onset,
        onset + rng.integers(1, 60, notes),
        rng.integers(55, 60, notes).astype(np.uint8),
        rng.integers(1, 128, notes).astype(np.uint8),
        beats * FRAMES,
    )
    return frames_to_cells(frames, beats)


def taken(cells: Cells, index: np.ndarray) -> Cells:
    """Some cells of a piece, in that order."""
    runs = [np.arange(*cells.segment_offset[[i, i + 1]]) for i in index]
    return replace(
        cells,
        beat=cells.beat[index],
        pitch=cells.pitch[index],
        sustain=cells.sustain[index],
        onset=cells.onset[index],
        segment_velocity=cells.segment_velocity[np.concatenate([np.zeros(0, int), *runs])],
    )


def draw_all(codec: VelocityCodec, cells: Cells, directory: Path) -> dict[str, tuple[int, int]]:
    """Width and height of each picture."""
    codes = codec.encode(cells)
    error = cell_errors(cells, codec.decode(codes, cells.sustain, cells.onset))
    group = segment_group(cells.segment_count)
    count = np.zeros((4, codec.codebook_size), np.int64)
    np.add.at(count, (group, codes), 1)
    pairs = np.zeros((128, 128), np.int64)
    first = cells.segment_offset[:-1][cells.segment_count == 2]
    np.add.at(pairs, (cells.segment_velocity[first], cells.segment_velocity[first + 1]), 1)
    save_code_usage(count, directory / "usage.png")
    save_code_atlas(codec, count, pairs, directory / "atlas.png")
    save_worst_cells(codec, lambda index: taken(cells, index), error, group, directory / "cells.png")
    return {path.stem: imread(path).shape[1::-1] for path in directory.glob("*.png")}


@pytest.mark.parametrize(
    "codec",
    [segment_codec(1, 1), Levels(3000)],
    ids=lambda c: type(c).__name__,
)
def test_codecs_of_any_form_and_size_are_drawn(codec: VelocityCodec, tmp_path: Path) -> None:
    sizes = draw_all(codec, random_cells(), tmp_path)
    assert set(sizes) == {"usage", "atlas", "cells"}
    assert all(width > 1000 and height > 600 for width, height in sizes.values())


@pytest.mark.parametrize("n_cells", [0, 5])
def test_little_data_is_drawn_too(n_cells: int, tmp_path: Path) -> None:
    sizes = draw_all(segment_codec(16), taken(random_cells(), np.arange(n_cells)), tmp_path)
    assert sizes["usage"] == (1320, 704)
    assert sizes["cells"] == (1452, 924)  # one row of the worst cells instead of two


def test_the_error_of_a_cell_is_the_mean_over_its_sounding_frames() -> None:
    cells, codec = random_cells(), segment_codec(16)
    decoded = codec.decode(codec.encode(cells), cells.sustain, cells.onset)
    played_CF = frame_velocity(cells).astype(float)
    decoded_CF = frame_velocity(replace(cells, segment_velocity=decoded))
    expected = np.abs(played_CF - decoded_CF).sum(axis=1) / (played_CF > 0).sum(axis=1)
    np.testing.assert_allclose(cell_errors(cells, decoded), expected, rtol=1e-6)


def test_groups_are_one_two_three_and_more_segments() -> None:
    assert segment_group(np.array([1, 2, 3, 4, 9])).tolist() == [0, 1, 2, 3, 3]


def test_the_atlas_shows_what_codes_decode_to() -> None:
    codec = segment_codec(32)
    np.testing.assert_array_equal(code_velocities(codec, [0]), codec.table(1))
    np.testing.assert_array_equal(code_velocities(codec, [0, 24]), codec.table(2))


def test_the_densest_region_has_most_of_the_data_and_little_of_the_plane() -> None:
    pairs = np.zeros((128, 128), np.int64)
    at = np.random.default_rng(0).normal(64, 6, (20_000, 2)).round().astype(int)
    np.add.at(pairs, tuple(at.T), 1)
    inside = densest_region(pairs)
    assert 0.99 <= pairs[inside].sum() / pairs.sum() < 0.995
    assert inside.mean() < 0.2
    assert not densest_region(np.zeros((128, 128), np.int64)).any()
