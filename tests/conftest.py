"""Fixtures that several test folders share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from pianolm.music.midi import write_midi
from pianolm.music.notes import make_notes
from tests.hub_server import TOKEN, Hub, running_hub
from tests.setups import built_once, without_curves_drawn, without_pictures_drawn

# No deadline: on a machine that does other work an example may take any time.
settings.register_profile("quick", deadline=None, max_examples=30)
settings.register_profile("full", deadline=None)

BEAT_SEC = 0.5


def pytest_configure(config: pytest.Config) -> None:
    """Where slow tests are left out, properties are tried on fewer examples, too."""
    settings.load_profile("quick" if "not slow" in (config.option.markexpr or "") else "full")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is not there."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real data: ../shared/data is not there")
    return path


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the whole tiny chain has run once: `artifacts/`, and `run/` of stage generate (no sound)."""
    return built_once(tmp_path_factory, "chain", _run_chain)


def _run_chain(root: Path) -> None:
    from pianolm.run import execute
    from tests.tiny import tiny

    with without_curves_drawn():
        execute(tiny(root, "stage=generate", "generate.audio=false"), root / "run")


@pytest.fixture
def without_curves() -> Iterator[None]:
    """No training draws its curves."""
    with without_curves_drawn():
        yield


@pytest.fixture
def without_pictures() -> Iterator[None]:
    """No stage draws codebook, codec or curves."""
    with without_pictures_drawn():
        yield


@pytest.fixture(scope="session")
def midi_file() -> Callable[..., Path]:
    """Writes a piece of 32 notes on 16 beats of half a second, of one velocity if it is given."""

    def write(path: Path, seed: int = 0, velocity: int | None = None) -> Path:
        rng = np.random.default_rng(seed)
        onset = np.arange(32) * BEAT_SEC / 2
        pitch = rng.integers(40, 80, 32)
        velocities = rng.integers(30, 100, 32) if velocity is None else np.full(32, velocity)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_midi(path, make_notes(onset, onset + BEAT_SEC / 4, pitch, velocities), np.arange(17) * BEAT_SEC)
        return path

    return write


@pytest.fixture(scope="session")
def beat_file() -> Callable[..., Path]:
    """Writes 17 beats in ASAP's format, a downbeat every fourth; fits what `midi_file` writes."""

    def write(path: Path, beat_sec: float = BEAT_SEC) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{i * beat_sec}\t{i * beat_sec}\t{'b' if i % 4 else 'db'}\n" for i in range(17)]
        path.write_text("".join(rows))
        return path

    return write


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hugging Face hub in place of the real one, an empty cache, and a token."""
    from huggingface_hub import constants

    with running_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
