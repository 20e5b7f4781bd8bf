from __future__ import annotations

from pathlib import Path

import numpy as np

from pianolm.data.cell_store import CellStore
from pianolm.music.cells import frame_velocity
from pianolm.velvq.cell_cache import CellCache, build_cache, segment_tables
from tests.velvq.toys import DYNAMIC, MidiFile, make_store


def test_the_cache_holds_the_pieces_with_dynamics_cell_by_cell(store: CellStore, tmp_path: Path) -> None:
    directory = build_cache(store, tmp_path / "cache")
    for part, pieces in (("train", [0, 2]), ("validation", [3])):
        cached, expected = CellCache.open(directory, part), store.joined(pieces)
        order = np.random.default_rng(0).permutation(len(expected))
        taken = cached.take(order)
        assert len(cached) == len(expected)
        assert np.array_equal(taken.sustain, expected.sustain[order])
        assert np.array_equal(frame_velocity(taken), frame_velocity(expected)[order])


def test_a_cache_is_reused_and_another_store_gets_its_own(
    store: CellStore, tmp_path: Path, midi_file: MidiFile
) -> None:
    root = tmp_path / "cache"
    first = build_cache(store, root)
    stamps = {p.name: p.stat().st_mtime_ns for p in first.iterdir()}
    assert build_cache(store, root) == first
    assert {p.name: p.stat().st_mtime_ns for p in first.iterdir()} == stamps
    other = make_store(tmp_path / "other", midi_file, [("train", DYNAMIC)])
    assert build_cache(other, root) != first
    assert sorted(p.name for p in root.iterdir()) == sorted({first.name, build_cache(other, root).name})


def test_segment_tables_hold_every_cell_by_its_number_of_segments(cells: CellCache) -> None:
    tables = segment_tables(cells, 3, 1)
    expected = cells.take(np.arange(len(cells)))
    count = np.minimum(expected.segment_count, 3)
    assert {n: len(table) for n, table in tables.items()} == {
        n: (count == n).sum() for n in set(count.tolist())
    }
    one = expected.segment_velocity[expected.segment_offset[:-1][count == 1]]
    assert np.array_equal(tables[1][:, 0, 0], one)
    frames = sum(int(table[:, 1].sum()) for table in tables.values())
    assert frames == int(np.bitwise_count(expected.sustain).sum())
    assert set(segment_tables(cells, 3, 2)) == set(tables) - {1}
