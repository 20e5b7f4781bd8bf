"""New velocities for the notes of a piece, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pianolm.dynamics.files import CONFIG_FILE, is_dynamics_model
from pianolm.dynamics.module import DynamicsModule
from pianolm.dynamics.renderer import DynamicsModel, _spans
from pianolm.errors import UserError
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece
from tests.dynamics.toys import SETTINGS, played


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    module = DynamicsModule(SETTINGS)
    torch.nn.init.normal_(module.network.blocks[0].out.weight)
    directory = tmp_path_factory.mktemp("dynamics")
    module.export_weights(directory)
    return directory


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_only_velocities_change_and_those_given_do_not_matter(directory: Path, temperature: float) -> None:
    model, piece = DynamicsModel.from_pretrained(directory), played(40)
    louder = piece.notes.copy()
    louder["velocity"] += 20
    one = model.render(piece, temperature, seed=3)
    other = model.render(replace(piece, notes=louder), temperature, seed=3)
    np.testing.assert_array_equal(one.notes, other.notes)
    for name in ("onset_sec", "offset_sec", "pitch"):
        np.testing.assert_array_equal(one.notes[name], piece.notes[name])
    assert one.notes["velocity"].min() >= 1
    assert np.unique(one.notes["velocity"]).size > 1
    assert not one.flat


def test_the_seed_decides_what_is_drawn(directory: Path) -> None:
    model, piece = DynamicsModel.from_pretrained(directory), played()
    drawn = [model.render(piece, seed=seed).notes["velocity"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_takes_are_alike(directory: Path) -> None:
    """A few notes are drawn, and the others follow them."""
    model, piece = DynamicsModel.from_pretrained(directory), played(40)
    takes = [model.render(piece, 1.0, seed).notes["velocity"] for seed in range(3)]
    expected = model.render(piece, 0.0, seed=7).notes["velocity"]
    np.testing.assert_array_equal(expected, model.render(piece, 0.0).notes["velocity"])
    assert min(np.corrcoef([expected, *takes])[0, 1:]) > 0.3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_median_velocity_is_the_one_that_is_told(directory: Path, temperature: float) -> None:
    model, piece = DynamicsModel.from_pretrained(directory), played()
    for level in (30, 64, 100):
        velocity = model.render(piece, temperature, median_velocity=level).notes["velocity"]
        assert abs(np.median(velocity) - level) <= 1
        assert np.unique(velocity).size > 1


def test_spread_goes_from_the_expected_velocities_to_their_distribution(directory: Path) -> None:
    model, piece = DynamicsModel.from_pretrained(directory), played(40)
    narrow, half, wide = (model.render(piece, 0.0, spread=one).notes["velocity"] for one in (0.0, 0.5, 1.0))
    assert narrow.std() < half.std() < wide.std()
    order = np.argsort(narrow, kind="stable")
    assert np.all(np.diff(wide[order].astype(int))[np.diff(narrow[order].astype(int)) > 0] >= 0)


def test_wrong_arguments_are_one_sentence(directory: Path) -> None:
    model, piece = DynamicsModel.from_pretrained(directory), played()
    for wrong in ({"median_velocity": 0}, {"median_velocity": 128}):
        with pytest.raises(UserError, match=r"median_velocity=\d+ found, expected 1 to 127"):
            model.render(piece, **wrong)
    with pytest.raises(UserError, match="temperature=-1 found, expected at least 0"):
        model.render(piece, -1)
    with pytest.raises(UserError, match="spread=2 found, expected 0 to 1"):
        model.render(piece, spread=2)
    empty = np.zeros(0)
    silent = Piece(make_notes(empty, empty, empty, empty), piece.beats_sec, flat=True)
    with pytest.raises(UserError, match="without notes"):
        model.render(silent)


@pytest.mark.parametrize("n_notes", [1, 255, 256, 257, 384, 385, 1000, 1024])
def test_windows_cover_every_note_once(n_notes: int) -> None:
    spans = list(_spans(n_notes))
    kept = np.concatenate([np.arange(n_notes)[keep] for _, keep in spans])
    np.testing.assert_array_equal(kept, np.arange(n_notes))
    for window, keep in spans:
        assert window.start <= keep.start < keep.stop <= window.stop
        assert window.stop - window.start <= 256


def test_other_directories_are_refused(directory: Path, tmp_path: Path) -> None:
    assert is_dynamics_model(directory)
    assert not is_dynamics_model(tmp_path)
    with pytest.raises(UserError, match="no readable dynamics model"):
        DynamicsModel.from_pretrained(tmp_path)
    (tmp_path / CONFIG_FILE).write_text('{"format": "pianolm dynamics 1", "width": 64, "layers": 1}')
    (tmp_path / "dynamics.safetensors").write_bytes((directory / "dynamics.safetensors").read_bytes())
    with pytest.raises(UserError, match="no readable dynamics model"):
        DynamicsModel.from_pretrained(tmp_path)
