"""`evaluate=roundtrip`: exact and lost notes with their reasons, errors in seconds, the whole stage."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pianolm import PianoTokenizer, Piece
from pianolm.errors import UserError
from pianolm.evaluation.roundtrip import REASONS, roundtrip
from pianolm.music.notes import make_notes
from pianolm.run import execute
from pianolm.tokenizer.codebook import Patterns
from pianolm.tokenizer.codebook_fit import complete
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Vocabulary
from tests.music.midi_events import note, write_events
from tests.tiny import tiny
from tests.tokenizer.velocity.test_segment import random_segment_codec

MidiFile = Callable[..., Path]
EXACT, MERGED, CUT = -1, REASONS.index("merged"), REASONS.index("cut")


def untrained(velocity: bool = False) -> PianoTokenizer:
    none = np.zeros(0, np.uint64)
    codebook = complete([Patterns(none, none)] * 3, Vocabulary())
    return PianoTokenizer(codebook, TempoBins(), random_segment_codec(64) if velocity else None)


def piece(*notes: tuple[float, float, int, int]) -> Piece:
    """Notes (onset, offset, pitch, velocity) on beats of half a second."""
    columns = np.array(notes).T
    return Piece.from_notes(make_notes(*columns[:2], *columns[2:].astype(int)), np.arange(17) * 0.5)


def test_every_lost_note_has_its_reason() -> None:
    result = roundtrip(
        untrained(),
        piece(
            (0.0, 0.5, 60, 70),  # merged: the next one, of its frame, lasts longer
            (0.001, 0.9, 60, 80),
            (1.0, 2.0, 62, 70),  # cut by the next strike
            (1.5, 1.7, 62, 70),
            (2.0, 2.0, 64, 70),  # no length: one frame
            (3.0, 3.5, 65, 70),  # one of two equal notes comes back
            (3.0, 3.5, 65, 60),
        ),
    )
    assert result.lost.tolist() == [MERGED, EXACT, CUT, EXACT, EXACT, EXACT, MERGED]
    assert result.decoded_end[2] == 3 * 48 != result.end[2]
    assert result.end[4] - result.onset[4] == 1
    assert result.onset_error_sec.size == 3  # notes that share a frame have no onset of their own
    assert result.offset_error_sec.size == 4


def test_errors_in_seconds_are_those_of_tempo_and_frame() -> None:
    given = piece(*[(i * 0.3, i * 0.3 + 0.2, 60 + i, 64) for i in range(20)])
    result = roundtrip(untrained(), given)
    steps = 60 / TempoBins().bpm
    assert result.beat_error_sec.size == given.n_beats
    assert 0 < result.beat_error_sec.max() <= np.abs(np.diff(steps)).max()
    assert result.onset_error_sec.max() <= result.beat_error_sec.max() + 0.5 / 48
    assert (result.lost == EXACT).all()
    assert result.velocity_error.tolist() == [0] * 20  # the velocity of decoding without velocity tokens


def test_the_stage_measures_files_with_the_tokenizer_of_another_run(
    tmp_path: Path, midi_file: MidiFile
) -> None:
    untrained(velocity=True).save_pretrained(tmp_path / "tokenizer")
    for i in range(3):
        midi_file(tmp_path / f"music/{i}.mid", seed=i)
    (tmp_path / "music/broken.mid").write_bytes(b"no MIDI")
    cfg = tiny(
        tmp_path,
        "stage=evaluate",
        "data=folder",
        f"data.root={tmp_path}/music",
        "evaluate.split=all",
        f"upstream.tokenizer={tmp_path}/tokenizer",
    )
    run_dir = tmp_path / "run"
    metrics = execute(cfg, run_dir)
    assert (metrics["pieces"], metrics["rejected"], metrics["notes"]) == (3, 1, 96)
    assert metrics["notes_exact"] == 1
    assert metrics["notes_other"] == 0
    assert metrics["artifact"] == str(run_dir)
    assert 0 < metrics["velocity_mae"] < 40
    assert metrics["codes_per_cell"] >= 1
    assert not (tmp_path / "artifacts").exists()  # nothing was built
    with (run_dir / "pieces.csv").open() as file:
        assert sum(int(row["notes"]) for row in csv.DictReader(file)) == 96
    with (run_dir / "rejects.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["broken.mid"]


def test_files_are_read_with_the_options_of_the_data(tmp_path: Path) -> None:
    untrained().save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "music").mkdir()
    write_events(tmp_path / "music/0.mid", note(60, 480))  # without a tempo
    data = ("data=folder", f"data.root={tmp_path}/music", "data.default_tempo=reject", "evaluate.split=all")
    cfg = tiny(tmp_path, "stage=evaluate", *data, f"upstream.tokenizer={tmp_path}/tokenizer")
    with pytest.raises(UserError, match="only the default tempo"):
        execute(cfg, tmp_path / "run")


def test_without_a_tokenizer_one_is_built(tmp_path: Path) -> None:
    metrics = execute(tiny(tmp_path, "stage=evaluate", "tokenizer=base"), tmp_path / "run")
    assert metrics["notes_exact"] > 0.99
    assert "velocity_mae" not in metrics
    assert not list((tmp_path / "artifacts").glob("velvq/*"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.split=dev", "evaluate.split=dev found, expected one of train, validation, test, all"),
        ("evaluate.split=test", "no performance in it; its performances are in train"),
    ],
)
def test_a_split_without_performances_is_named(
    tmp_path: Path, midi_file: MidiFile, override: str, message: str
) -> None:
    untrained().save_pretrained(tmp_path / "tokenizer")
    midi_file(tmp_path / "music/0.mid")
    cfg = tiny(
        tmp_path,
        "stage=evaluate",
        "data=folder",
        f"data.root={tmp_path}/music",
        f"upstream.tokenizer={tmp_path}/tokenizer",
        override,
    )
    with pytest.raises(UserError, match=message):
        execute(cfg, tmp_path / "run")


def test_real_performances_are_decoded_exactly(tmp_path: Path, shared_data: Path) -> None:
    """With an untrained codebook, on which exactness and timing do not depend."""
    untrained(velocity=True).save_pretrained(tmp_path / "tokenizer")
    cfg = tiny(
        tmp_path,
        "stage=evaluate",
        "data=asap",
        f"data.root={shared_data}/asap",
        "data.kinds=[performance]",
        "data.limit=12",
        f"upstream.tokenizer={tmp_path}/tokenizer",
    )
    metrics = execute(cfg, tmp_path / "run")
    assert metrics["notes_exact"] >= 0.9999
    assert metrics["notes_other"] == 0
    assert metrics["beat_ms_p95"] <= 40
    assert metrics["onset_ms_p95"] <= 50
