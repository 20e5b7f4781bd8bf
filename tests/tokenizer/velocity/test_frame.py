"""The frame form of the velocity codec: resampling, segment velocities, and NumPy on random weights."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.cells import Cells, frame_velocity, segment_of_frame, strike_after_silence
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.errors import VelocityErrors, perplexity
from pianolm.tokenizer.velocity.frame import (
    ACTIVATIONS,
    FrameCodec,
    active_frames,
    frame_sources,
    nearest_frames,
    resample,
    resample_onsets,
    segment_velocities,
)

FRAMES_TRIED = [48, 24, 12]


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


def random_codec(
    frames: int, codebook_size: int = 64, seed: int = 0, activation: str = "silu", see_onset: bool = False
) -> FrameCodec:
    rng = np.random.default_rng(seed)
    pattern = 2 * frames if see_onset else frames
    widths = {
        "encoder": [frames + pattern, 32, 4],
        "decoder": [4 + pattern, 32],
        "output": [32 + pattern, 32, frames],
    }
    tensors = {"codebook": rng.normal(0, 0.5, (codebook_size, 4)).astype(np.float32)}
    for name, sizes in widths.items():
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            tensors[f"{name}.{i}.weight"] = rng.normal(0, fan_in**-0.5, (fan_out, fan_in)).astype(np.float32)
            tensors[f"{name}.{i}.bias"] = rng.normal(0, 0.1, fan_out).astype(np.float32)
    config = {
        "form": "frame",
        "frames": frames,
        "codebook_size": codebook_size,
        "activation": activation,
        "widths": widths,
        **({"see_onset": True} if see_onset else {}),
    }
    return FrameCodec(config, tensors)


def mask(*frames: int) -> NDArray[np.uint64]:
    return np.array([sum(1 << f for f in frames)], np.uint64)


@pytest.mark.parametrize("n", FRAMES_TRIED)
def test_nearest_frames_are_the_floor_and_their_inverse_reads_them_back(n: int) -> None:
    kept = nearest_frames(n)
    assert kept.tolist() == [i * 48 // n for i in range(n)]
    assert np.array_equal(frame_sources(n)[kept], np.arange(n))
    assert (np.abs(kept[frame_sources(n)] - np.arange(48)) < 48 // n).all()


@pytest.mark.parametrize("n", [0, 5, 49])
def test_frames_that_do_not_divide_the_beat_are_refused(n: int) -> None:
    with pytest.raises(UserError, match=f"velvq.frames={n}.*divisor of 48"):
        nearest_frames(n)


@pytest.mark.parametrize("n", FRAMES_TRIED)
def test_no_cell_is_lost_in_resampling_and_its_activity_follows_from_its_pattern(n: int) -> None:
    cells = random_cells(2000)
    resampled = resample(frame_velocity(cells), n)
    assert resampled.any(axis=1).all()
    assert np.array_equal(resampled > 0, active_frames(cells.sustain, n))


@pytest.mark.parametrize("n", FRAMES_TRIED)
def test_onsets_are_seen_where_a_struck_segment_begins_to_be_seen(n: int) -> None:
    cells = random_cells(2000)
    struck = resample_onsets(cells.sustain, cells.onset, n)
    assert not (struck & ~active_frames(cells.sustain, n)).any()
    if n == 48:
        bits = (cells.onset[:, None] >> np.arange(48, dtype=np.uint64)) & np.uint64(1) == 1
        assert np.array_equal(struck, bits)
    sounding = resample(frame_velocity(cells), n).astype(int)
    changes = (sounding[:, 1:] != sounding[:, :-1]) & (sounding[:, 1:] > 0)
    assert struck[:, 1:][changes].all()
    assert (struck.sum(axis=1) <= np.bitwise_count(cells.onset)).all()


def test_a_strike_between_kept_frames_is_seen_at_the_next_and_a_held_note_is_none() -> None:
    sustain, onset = mask(*range(20)), mask(9)  # held over, struck again at frame 9
    assert np.flatnonzero(resample_onsets(sustain, onset, 12)).tolist() == [3]
    assert np.flatnonzero(resample_onsets(sustain, mask(0, 9, 10), 12)).tolist() == [0, 3]
    assert np.flatnonzero(resample_onsets(mask(9, 10), mask(9), 12)).tolist() == [2]


@pytest.mark.parametrize("n", FRAMES_TRIED)
def test_only_a_codec_that_sees_onsets_reads_them(n: int) -> None:
    sustain = np.full(200, (1 << 48) - 1, np.uint64)
    held, struck = np.ones(200, np.uint64), np.full(200, 1 | 1 << 24, np.uint64)
    velocity = np.random.default_rng(3).integers(1, 128, 200).astype(np.uint8)
    place = np.zeros(200, np.int32)
    once = Cells(place, place.astype(np.uint8), sustain, held, velocity, 1)
    twice = Cells(place, place.astype(np.uint8), sustain, struck, velocity.repeat(2), 1)
    codes = np.random.default_rng(4).integers(0, 64, 200)
    for see_onset in (False, True):
        codec = random_codec(n, see_onset=see_onset)
        output = codec.tensors["output.1.weight"]
        output[:] = 5 * output[0]  # all frames say the same, so that a mean over some is a mean over all
        assert np.array_equal(codec.encode(once), codec.encode(twice)) != see_onset
        whole = codec.decode(codes, once.sustain, once.onset)
        halves = codec.decode(codes, twice.sustain, twice.onset).reshape(-1, 2).mean(axis=1)
        assert (np.abs(halves - whole) <= 1).all() != see_onset  # the same frames, but for rounding


def test_a_cell_between_kept_frames_takes_the_frame_it_lies_in() -> None:
    velocity = np.zeros((1, 48), np.uint8)
    velocity[0, 9:11] = 70
    assert resample(velocity, 12).tolist() == [[0, 0, 70, *[0] * 9]]


def test_true_frames_give_back_true_segments_at_full_resolution() -> None:
    cells = random_cells(2000)
    decoded = segment_velocities(frame_velocity(cells).astype(np.float32), cells.sustain, cells.onset)
    assert np.array_equal(decoded, cells.segment_velocity)


@pytest.mark.parametrize("n", [24, 12])
def test_segments_that_own_a_frame_come_back_at_lower_resolution(n: int) -> None:
    cells = random_cells(2000)
    frames = resample(frame_velocity(cells), n)
    decoded = segment_velocities(frames.astype(np.float32), cells.sustain, cells.onset)
    kept = segment_of_frame(cells.sustain, cells.onset)[:, nearest_frames(n)]
    owns = np.concatenate(
        [np.isin(np.arange(k), row) for k, row in zip(cells.segment_count, kept, strict=True)]
    )
    assert 0.5 < owns.mean() < 1
    assert np.array_equal(decoded[owns], cells.segment_velocity[owns])
    single = np.repeat(cells.segment_count == 1, cells.segment_count)
    assert not owns[single].all()
    assert np.array_equal(decoded[single], cells.segment_velocity[single])


def test_a_segment_that_owns_no_frame_takes_the_nearest_active_one() -> None:
    sustain, onset = mask(*range(2), *range(9, 20)), mask(0, 9, 10)
    frames = np.zeros((1, 12), np.float32)
    frames[0, [0, 3, 4]] = [40, 81, 79]
    # frame 9 lies between the kept frames 8 (silent) and 12 (of the third segment)
    assert segment_velocities(frames, sustain, onset).tolist() == [40, 81, 80]


@pytest.mark.parametrize("n", FRAMES_TRIED)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_codes_do_not_depend_on_order_or_company(n: int, activation: str) -> None:
    codec, cells = random_codec(n, activation=activation), random_cells(1500)
    frames = resample(frame_velocity(cells), n)
    codes = codec.encode(cells)
    assert np.unique(codes).size > 10
    order = np.random.default_rng(1).permutation(len(cells))
    assert np.array_equal(codec.encode_frames(frames[order]), codes[order])
    assert np.array_equal(np.concatenate([codec.encode_frames(f) for f in np.array_split(frames, 7)]), codes)


@pytest.mark.parametrize("n", FRAMES_TRIED)
def test_any_code_decodes_beside_any_pattern(n: int) -> None:
    codec, cells = random_codec(n), random_cells(1500)
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
    codec, none = random_codec(48), np.zeros(0, np.uint64)
    octets = none.astype(np.uint8)
    assert codec.encode(Cells(none.astype(np.int32), octets, none, none, octets, 3)).shape == (0,)
    assert codec.decode(np.zeros(0, np.int64), none, none).shape == (0,)


def test_a_saved_codec_is_the_same_codec(tmp_path: Path) -> None:
    codec, cells = random_codec(24), random_cells(300)
    codec.save(tmp_path)
    for path in (tmp_path, tmp_path / "codec.safetensors"):
        loaded = VelocityCodec.from_directory(path)
        assert loaded.fingerprint == codec.fingerprint
        assert np.array_equal(loaded.encode(cells), codec.encode(cells))
    assert random_codec(24, seed=1).fingerprint != codec.fingerprint


def test_a_configuration_that_does_not_speak_of_onsets_loads_as_blind_to_them(tmp_path: Path) -> None:
    old, seeing = random_codec(24), random_codec(24, see_onset=True)
    old.save(tmp_path / "old")
    seeing.save(tmp_path / "seeing")
    assert "see_onset" not in json.loads((tmp_path / "old" / "config.json").read_text())
    loaded = [VelocityCodec.from_directory(tmp_path / name) for name in ("old", "seeing")]
    assert [isinstance(c, FrameCodec) and c.see_onset for c in loaded] == [False, True]
    assert np.array_equal(loaded[1].encode(random_cells(300)), seeing.encode(random_cells(300)))


def test_a_directory_that_is_no_codec_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.json: no readable codec configuration"):
        VelocityCodec.from_directory(tmp_path)
    random_codec(24).save(tmp_path)
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
    metrics = VelocityErrors.from_vector(errors.vector).metrics()
    assert metrics["val/velocity_mae"] == pytest.approx((48 * 1 + 10 * 10 + 10 * 4) / 68)
    assert metrics["val/velocity_mae_1"] == 1
    assert metrics["val/velocity_mae_2"] == 7
    assert "val/velocity_mae_3" not in metrics
    assert metrics["val/note_velocity_p95"] == 4  # the held note's error of 10 is not a struck note's
    assert metrics["val/codes_used"] == 0.5
    assert metrics["val/code_perplexity"] == pytest.approx(2)
    assert perplexity(np.array([8, 0])) == 1
