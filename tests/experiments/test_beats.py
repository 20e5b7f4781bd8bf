"""The tracker against two annotations of the same song."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pianolm.data.sources.demo import write_piece
from pianolm.data.sources.demo.composer import compose
from pianolm.models import BEATS
from pianolm.music.beat_estimation import load_tracker
from pianolm.music.beats import read_beats
from tests.experiment import load


def test_annotations_with_the_same_beats_and_other_bars(tmp_path: Path) -> None:
    song = tmp_path / "721"
    song.mkdir()
    midi = write_piece(compose(0, 1), song, 0)
    annotated = read_beats(song / f"{midi.stem}_annotations.txt")
    midi.rename(song / "721.mid")
    beats_sec, downbeat = annotated.beats_sec, annotated.downbeat
    assert downbeat is not None
    np.savetxt(song / "beat_midi.txt", np.stack([beats_sec, downbeat, downbeat], axis=1))
    np.savetxt(song / "beat_audio.txt", np.stack([beats_sec, np.where(np.roll(downbeat, 1), 1, 2)], axis=1))
    row = load("beats/annotations.py").compare(song, load_tracker(BEATS))
    assert row["song"] == "721"
    assert (row["between_beat_f"], row["between_downbeat_f"]) == (1, 0)
    assert row["midi_beat_f"] == row["audio_beat_f"] > 0.8
    assert row["midi_downbeat_f"] > 0.8 > 0.2 > row["audio_downbeat_f"]
