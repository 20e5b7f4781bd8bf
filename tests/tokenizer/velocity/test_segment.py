"""The segment form of the velocity codec: nearest lists, ties, many segments, and independence of company."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.cells import Cells, segment_lengths
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.segment import SegmentCodec, segment_rows
from tests.tokenizer.velocity.test_frame import mask, random_cells, take


def random_segment_codec(codebook_size: int = 64, max_segments: int = 4, seed: int = 0) -> SegmentCodec:
    rng = np.random.default_rng(seed)
    tables = [rng.integers(1, 128, (codebook_size, n)).astype(np.uint8) for n in range(1, max_segments + 1)]
    return SegmentCodec.from_tables(tables)


def cell(*segments: tuple[int, int]) -> Cells:
    """One cell of struck segments (velocity, frames), one after the other."""
    starts = np.cumsum([0, *(frames for _, frames in segments)])
    velocity = np.array([v for v, _ in segments], np.uint8)
    one = np.zeros(1, np.int32)
    return Cells(one, one.astype(np.uint8), mask(*range(starts[-1])), mask(*starts[:-1]), velocity, 1)


def brute_force(codec: SegmentCodec, cells: Cells) -> NDArray[np.int64]:
    """The error of every code, decoded by the codec itself and summed frame by frame."""
    errors = np.empty((len(cells), codec.codebook_size))
    lengths = segment_lengths(cells.sustain, cells.onset)
    for code in range(codec.codebook_size):
        decoded = codec.decode(np.full(len(cells), code), cells.sustain, cells.onset)
        error = np.abs(decoded.astype(float) - cells.segment_velocity)
        errors[:, code] = np.add.reduceat(error * lengths, cells.segment_offset[:-1])
    return errors


def test_no_other_code_decodes_nearer_to_what_was_played() -> None:
    codec, cells = random_segment_codec(max_segments=8), random_cells(400)
    assert cells.segment_count.max() <= 8
    errors = brute_force(codec, cells)
    codes = codec.encode(cells)
    assert np.array_equal(errors[np.arange(len(cells)), codes], errors.min(axis=1))
    assert np.unique(codes).size > 30


def test_a_longer_segment_weighs_more() -> None:
    tables = [np.array([[60], [60]], np.uint8), np.array([[60, 80], [70, 70]], np.uint8)]
    codec = SegmentCodec.from_tables(tables)
    assert codec.encode(cell((60, 40), (70, 8))).tolist() == [0]
    assert codec.encode(cell((60, 8), (70, 40))).tolist() == [1]


def test_many_segments_are_pooled_by_their_frames() -> None:
    cells = cell((10, 1), (20, 3), (50, 2), (60, 2), (90, 9))
    ((_, velocity, length),) = [rows for rows in segment_rows(cells, 2) if len(rows.cell)]
    # runs of three and two segments: (10 + 60 + 100) / 6 and (120 + 810) / 11
    assert velocity.tolist() == [[28, 85]]
    assert length.tolist() == [[6, 11]]
    codec = SegmentCodec.from_tables([np.array([[1], [2]], np.uint8), np.array([[5, 6], [30, 80]], np.uint8)])
    code = codec.encode(cells)
    assert codec.decode(code, cells.sustain, cells.onset).tolist() == [30, 30, 30, 80, 80]


def test_one_velocity_takes_the_middle_code_that_says_it() -> None:
    tables = [np.array([[40], [50], [50], [50], [60]], np.uint8)]
    codec = SegmentCodec.from_tables(tables)
    assert codec.encode(cell((50, 4))).tolist() == [2]
    assert codec.encode(cell((127, 4))).tolist() == [4]
    assert codec.encode(cell((50, 4), (60, 4))).tolist() == [
        2
    ]  # pooled to 55: the nearer codes, then the first


@pytest.mark.parametrize("max_segments", [1, 2, 6])
def test_codes_do_not_depend_on_other_cells(max_segments: int) -> None:
    codec, cells = random_segment_codec(max_segments=max_segments), random_cells(1500)
    codes = codec.encode(cells)
    order = np.random.default_rng(1).permutation(len(cells))
    for rows in (order, order[:7], order[:1]):
        assert np.array_equal(codec.encode(take(cells, rows)), codes[rows])


def test_any_code_decodes_beside_any_pattern() -> None:
    codec, cells = random_segment_codec(), random_cells(1500)
    codes = np.random.default_rng(2).integers(0, codec.codebook_size, len(cells))
    velocity = codec.decode(codes, cells.sustain, cells.onset)
    assert velocity.shape == cells.segment_velocity.shape
    assert velocity.dtype == np.uint8
    assert velocity.min() >= 1
    single = np.flatnonzero(cells.segment_count == 1)
    assert np.array_equal(velocity[cells.segment_offset[single]], codec.table(1)[codes[single], 0])


def test_no_cells_are_no_codes_and_no_velocities() -> None:
    codec, none = random_segment_codec(), np.zeros(0, np.uint64)
    octets = none.astype(np.uint8)
    assert codec.encode(Cells(none.astype(np.int32), octets, none, none, octets, 3)).shape == (0,)
    assert codec.decode(np.zeros(0, np.int64), none, none).shape == (0,)


def test_a_saved_codec_is_the_same_codec(tmp_path: Path) -> None:
    codec, cells = random_segment_codec(), random_cells(300)
    codec.save(tmp_path)
    loaded = VelocityCodec.from_directory(tmp_path)
    assert isinstance(loaded, SegmentCodec)
    assert loaded.fingerprint == codec.fingerprint != random_segment_codec(seed=1).fingerprint
    assert np.array_equal(loaded.encode(cells), codec.encode(cells))


def test_a_codec_that_does_not_fit_its_configuration_is_refused(tmp_path: Path) -> None:
    random_segment_codec().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "max_segments": 5}))
    with pytest.raises(UserError, match=r"velocity_5 has shape None.*expects \(64, 5\)"):
        VelocityCodec.from_directory(tmp_path)
    del config["max_segments"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="max_segments=None found, expected a whole number from 1 to 48"):
        VelocityCodec.from_directory(tmp_path)
