"""`run.log` and the link to the last run."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from pianolm.pipeline.run_log import RunLog, link_latest


@contextmanager
def logged(path: Path) -> Iterator[io.StringIO]:
    """A log that is written to `path`; yields the stream that stands for the terminal."""
    terminal, log = io.StringIO(), RunLog()
    with redirect_stdout(terminal), redirect_stderr(terminal):
        log.start()
        print("started")
        log.open(path)
        yield terminal
    log.close()


def test_lines_before_and_after_the_file_is_known_stand_in_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "run.log"
    with logged(path) as terminal:
        print("after", end="")
        print(" all\n")
        print("a problem", file=sys.stderr)
    assert path.read_text() == terminal.getvalue() == "started\nafter all\n\na problem\n"


def test_a_bar_leaves_its_last_state_and_the_lines_above_it(tmp_path: Path) -> None:
    with logged(tmp_path / "run.log"):
        console = Console(force_terminal=True, width=60)
        with Progress(console=console, auto_refresh=False) as bar:
            task = bar.add_task("base", total=3)
            for step in range(1, 4):
                bar.update(task, completed=step)
                bar.refresh()
                bar.console.print(f"  step {step}/3")
    _, *lines = (tmp_path / "run.log").read_text().splitlines()
    assert lines[:3] == ["  step 1/3", "  step 2/3", "  step 3/3"]
    assert len(lines) == 4
    assert lines[3].startswith("base ")
    assert "100%" in lines[3]
    assert "\x1b" not in "".join(lines)


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with logged(tmp_path / "file" / "run.log") as terminal:
        print("goes on")
    assert terminal.getvalue() == "started\ngoes on\n"


def test_latest_points_to_the_last_run(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for name in ("first", "second"):
        (outputs / "base" / name).mkdir(parents=True)
        link_latest(outputs, outputs / "base" / name)
        assert (outputs / "latest").resolve() == outputs / "base" / name
    assert str((outputs / "latest").readlink()) == "base/second"
    assert sorted(p.name for p in outputs.iterdir()) == ["base", "latest"]


@pytest.mark.parametrize("obstacle", ["no links", "a directory of that name"])
def test_where_no_link_is_possible_a_text_file_names_the_run(
    obstacle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise NotImplementedError

    if obstacle == "no links":
        monkeypatch.setattr(Path, "symlink_to", refuse)
    else:
        (tmp_path / "latest").mkdir()
    link_latest(tmp_path, tmp_path / "base" / "run")
    assert (tmp_path / "latest.txt").read_text() == "base/run\n"
    assert not list(tmp_path.glob(".latest*"))
