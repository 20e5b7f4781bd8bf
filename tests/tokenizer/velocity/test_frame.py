"""The frame form of the velocity codec: segment velocities, and NumPy on random weights."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.cells import Cells, frame_velocity, strike_after_silence
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.errors import VelocityErrors, perplexity
from pianolm.tokenizer.velocity.frame import FrameCodec, active_frames, segment_velocities


def random_cells(n_cells: int, seed: int = 0) -> Cells:
    """Cells of all kinds: notes of any length and number, held over or not, down to a single frame."""
    rng = np.random.default_rng(seed)
    bits = np.uint64(1) << np.arange(48, dtype=np.uint64)
    sounding = np.sort(rng.integers(0, 49, (n_cells, 4)), axis=1)
    frame = np.arange(48)
    active = ((frame >= sounding[:, :1]) & (frame < sounding[:, 1:2])) | (
        (frame >= sounding[:, 2:3]) & (frame < sounding[:, 3:])
    )
    active[~active.any(axis=1), rng.integers(0, 48)] = True
    sustain = (active * bits).sum(axis=1, dtype=np.uint64)
    struck = active & (rng.random((n_cells, 48)) < 0.03)
    onset = strike_after_silence(sustain, (struck * bits).sum(axis=1, dtype=np.uint64))
    segments = int(np.bitwise_count(onset | (sustain & np.uint64(1))).sum())
    velocity = rng.integers(1, 128, segments).astype(np.uint8)
    beat = np.arange(n_cells, dtype=np.int32)
    return Cells(beat, np.full(n_cells, 60, np.uint8), sustain, onset, velocity, n_cells)


def random_codec(codebook_size: int = 64, seed: int = 0) -> FrameCodec:
    rng = np.random.default_rng(seed)
    widths = {"encoder": [96, 32, 4], "decoder": [52, 32], "output": [80, 32, 48]}
    tensors = {"codebook": rng.normal(0, 0.5, (codebook_size, 4)).astype(np.float32)}
    for name, sizes in widths.items():
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            tensors[f"{name}.{i}.weight"] = rng.normal(0, fan_in**-0.5, (fan_out, fan_in)).astype(np.float32)
            tensors[f"{name}.{i}.bias"] = rng.normal(0, 0.1, fan_out).astype(np.float32)
    config = {"form": "frame", "codebook_size": codebook_size, "widths": widths}
    return FrameCodec(config, tensors)


def take(cells: Cells, rows: NDArray[np.int64]) -> Cells:
    """Cells at any positions."""
    runs = np.split(cells.segment_velocity, cells.segment_offset[1:-1])
    velocity = np.concatenate([runs[i] for i in rows])
    masks = cells.beat[rows], cells.pitch[rows], cells.sustain[rows], cells.onset[rows]
    return Cells(*masks, velocity, cells.n_beats)


def mask(*frames: int) -> NDArray[np.uint64]:
    return np.array([sum(1 << f for f in frames)], np.uint64)


def test_activity_follows_from_the_pattern() -> None:
    cells = random_cells(2000)
    assert np.array_equal(frame_velocity(cells) > 0, active_frames(cells.sustain))


def test_true_frames_give_back_true_segments() -> None:
    cells = random_cells(2000)
    decoded = segment_velocities(frame_velocity(cells).astype(np.float32), cells.sustain, cells.onset)
    assert np.array_equal(decoded, cells.segment_velocity)


def test_codes_do_not_depend_on_other_cells() -> None:
    codec, cells = random_codec(), random_cells(1500)
    codes = codec.encode(cells)
    assert np.unique(codes).size > 10
    order = np.random.default_rng(1).permutation(len(cells))
    for rows in (order, order[:7], order[:1]):
        assert np.array_equal(codec.encode(take(cells, rows)), codes[rows])


def test_any_code_decodes_beside_any_pattern() -> None:
    codec, cells = random_codec(), random_cells(1500)
    codes = np.random.default_rng(2).integers(0, codec.codebook_size, len(cells))
    velocity = codec.decode(codes, cells.sustain, cells.onset)
    assert velocity.shape == cells.segment_velocity.shape
    assert velocity.dtype == np.uint8
    assert velocity.min() >= 1
    assert velocity.max() <= 127
    order = np.random.default_rng(1).permutation(len(cells))
    shuffled = codec.decode(codes[order], cells.sustain[order], cells.onset[order])
    runs = np.split(velocity, cells.segment_offset[1:-1])
    assert np.array_equal(shuffled, np.concatenate([runs[i] for i in order]))


def test_no_cells_are_no_codes_and_no_velocities() -> None:
    codec, none = random_codec(), np.zeros(0, np.uint64)
    octets = none.astype(np.uint8)
    assert codec.encode(Cells(none.astype(np.int32), octets, none, none, octets, 3)).shape == (0,)
    assert codec.decode(np.zeros(0, np.int64), none, none).shape == (0,)


def test_a_saved_codec_is_the_same_codec(tmp_path: Path) -> None:
    codec, cells = random_codec(), random_cells(300)
    codec.save(tmp_path)
    for path in (tmp_path, tmp_path / "codec.safetensors"):
        loaded = VelocityCodec.from_directory(path)
        assert loaded.fingerprint == codec.fingerprint
        assert np.array_equal(loaded.encode(cells), codec.encode(cells))
    assert random_codec(seed=1).fingerprint != codec.fingerprint


def test_a_directory_that_is_no_codec_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.json: not readable as JSON"):
        VelocityCodec.from_directory(tmp_path)
    random_codec().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "codebook_size": 512}))
    with pytest.raises(UserError, match=r"codebook has shape \(64, 4\).*expects \(512, 4\)"):
        VelocityCodec.from_directory(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "form": "other"}))
    with pytest.raises(UserError, match="form 'other'"):
        VelocityCodec.from_directory(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "codec.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="no readable codec weights"):
        VelocityCodec.from_directory(tmp_path)


def test_errors_are_weighed_by_frames_and_notes_counted_where_struck() -> None:
    sustain = np.concatenate([mask(*range(48)), mask(*range(10), *range(20, 30))])
    onset = np.concatenate([mask(0), mask(20)])  # the second cell begins with a note held over
    errors = VelocityErrors.empty(4)
    played, decoded = np.array([60, 50, 70], np.uint8), np.array([61, 60, 66], np.uint8)
    errors.add(np.array([1, 3]), sustain, onset, played, decoded)
    metrics = errors.metrics()
    assert metrics["val/velocity_mae"] == pytest.approx((48 * 1 + 10 * 10 + 10 * 4) / 68)
    assert metrics["val/velocity_mae_1"] == 1
    assert metrics["val/velocity_mae_2"] == 7
    assert "val/velocity_mae_3" not in metrics
    assert metrics["val/note_velocity_p95"] == 4  # the held note's error of 10 is not a struck note's
    assert metrics["val/codes_used"] == 0.5
    assert metrics["val/code_perplexity"] == pytest.approx(2)
    assert perplexity(np.array([8, 0])) == 1
