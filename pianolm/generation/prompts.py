"""What stage `generate` goes on from: one MIDI file, several, or a pattern that finds them.

Reads `prompt`, `generate.mode` and `generate.prompt_grid`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from pianolm.errors import UserError
from pianolm.music.piece import BEAT_CHOICES, Piece

MODES = ("continue", "dynamics")


@dataclass(frozen=True)
class Prompt:
    """Music to go on from.

    Attributes:
        path: Its file.
        piece: What stands in it.
        name: What pieces after it are called by, before a number; empty where it is the only one asked for.
    """

    path: Path
    piece: Piece
    name: str = ""


def read_prompts(cfg: Mapping[str, Any]) -> list[Prompt]:
    """The pieces that `prompt` names on the beats that `generate.prompt_grid` says, in order; none without a prompt.

    Raises:
        UserError: A file or its beats cannot be read, pieces after two of them would have one name, or the mode needs
            a prompt and there is none.
    """
    mode = cfg["generate"]["mode"]
    if mode not in MODES:
        raise UserError(f"generate.mode={mode!r} found, expected one of {', '.join(MODES)}")
    if cfg["prompt"] is None:
        if mode == "dynamics":
            raise UserError(
                "generate.mode=dynamics gives a prompt's notes their velocities, and there is none; add prompt=FILE.mid"
            )
        return []
    paths, several = _prompt_paths(cfg["prompt"])
    grid = cfg["generate"]["prompt_grid"]
    if len(paths) > 1 and grid not in BEAT_CHOICES:
        raise UserError(
            f"generate.prompt_grid={grid}: one beat file for {len(paths)} prompts; put a beat file beside each prompt, "
            f"or give one of {', '.join(BEAT_CHOICES)}"
        )
    paths = list(dict.fromkeys(paths))
    _refuse_one_name(paths)
    return [Prompt(path, Piece.from_midi(path, beats=grid), path.stem if several else "") for path in paths]


def spare(prompts: list[Prompt], run_dir: Path) -> None:
    """Refuses prompts that lie where files are written, which may have their names.

    Raises:
        UserError: One does.
    """
    for prompt in prompts:
        if prompt.path.resolve().parent == run_dir.resolve():
            raise UserError(
                f"prompt={prompt.path}: lies in the directory that this run writes to, which could overwrite it; "
                "choose another hydra.run.dir"
            )


def _prompt_paths(given: Any) -> tuple[list[Path], bool]:
    """The files that `prompt` means, and whether it is of a form that can mean several: a list, or a pattern."""
    if isinstance(given, list):
        if not given:
            raise UserError(
                "prompt=[]: an empty list found, expected MIDI files; leave it out to play from nothing"
            )
        return [path for one in given for path in _prompt_paths(one)[0]], True
    path = Path(str(given)).expanduser()
    if path.exists() or not set("*?") & set(str(given)):
        return [path], False
    found = sorted(Path(one) for one in glob(str(path).replace("[", "[[]"), recursive=True))
    if not found:
        raise UserError(
            f"prompt={given}: no file fits this pattern; give a MIDI file, several as [a.mid,b.mid], or a pattern as "
            "'songs/*.mid'"
        )
    return found, True


def _refuse_one_name(paths: list[Path]) -> None:
    known: dict[str, Path] = {}
    for path in paths:
        other = known.setdefault(path.stem, path)
        if other != path:
            raise UserError(
                f"prompt: {other} and {path} have one name, by which pieces after them would be called; rename one, or "
                "play them in two runs"
            )
