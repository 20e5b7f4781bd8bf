"""FluidSynth: notes at their time and pitch; a program or soundfont that does not work is one sentence."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pianolm.errors import UserError
from pianolm.report import fluidsynth
from pianolm.report.audio import TAIL_SEC, render
from pianolm.report.fluidsynth import choose_soundfont
from tests.report.test_audio import RATE_HZ, level_db, peak_hz, piece


def installed_soundfont() -> Path:
    found = choose_soundfont("auto")
    if found is None:
        pytest.skip("no FluidSynth with a soundfont on this machine")
    return found


def test_fluidsynth_plays_the_same_notes_at_the_same_time() -> None:
    soundfont = installed_soundfont()
    sound = render(piece([0.5, 2.5], [1.0, 3.0], [69, 69], [90, 40]), RATE_HZ, soundfont)
    assert sound.size == round((4.0 + TAIL_SEC) * RATE_HZ)
    assert level_db(sound, 0.0, 0.45) < -60
    assert level_db(sound, 0.5, 1.0) > level_db(sound, 2.5, 3.0) + 3
    assert peak_hz(sound[int(0.55 * RATE_HZ) : int(0.95 * RATE_HZ)], 440) == pytest.approx(440, rel=5e-3)


def fake_fluidsynth(folder: Path, script: str) -> None:
    program = folder / "fluidsynth"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_without_fluidsynth_the_built_in_piano_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PIANOLM_SOUNDFONT", raising=False)
    assert choose_soundfont("auto") is None
    assert choose_soundfont(None) is None
    with pytest.raises(UserError, match="the program fluidsynth is not installed"):
        choose_soundfont(str(tmp_path / "a.sf2"))
    monkeypatch.setenv("PIANOLM_SOUNDFONT", str(tmp_path / "a.sf2"))
    with pytest.raises(UserError, match=r"a\.sf2: the program fluidsynth"):
        choose_soundfont("auto")


@pytest.mark.parametrize("script", ["exit 3", "exit 0"])
def test_a_fluidsynth_that_fails_is_one_sentence(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_fluidsynth(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "a.sf2").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"a\.sf2: fluidsynth fails \(\w+\); try another") as error:
        choose_soundfont(str(tmp_path / "a.sf2"))
    assert "\n" not in str(error.value)
    monkeypatch.delenv("PIANOLM_SOUNDFONT", raising=False)
    monkeypatch.setattr(fluidsynth, "_SOUNDFONT_DIRECTORIES", (str(tmp_path),))
    assert choose_soundfont("auto") is None, "an installed soundfont that does not work is skipped"


def test_a_wrong_soundfont_is_one_sentence(tmp_path: Path) -> None:
    soundfont = installed_soundfont().read_bytes()
    with pytest.raises(UserError, match=r"none\.sf2: no such file"):
        choose_soundfont(str(tmp_path / "none.sf2"))
    for content in (b"no soundfont" * 99, soundfont[:3000]):
        (tmp_path / "a.sf2").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.sf2: fluidsynth cannot play it"):
            choose_soundfont(str(tmp_path / "a.sf2"))
