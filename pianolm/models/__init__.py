"""Bundled models: trained models that come with the package, a folder each, with a card (`README.md`)."""

from __future__ import annotations

from pathlib import Path

from pianolm import hub

FOLDER = Path(__file__).resolve().parent
"""A folder in it that holds `config.json` is a model."""
DEFAULT = "pop"
"""The model that `stage=generate` plays where nothing asks for another one."""
BEATS = "beats"
"""Folder of a beat tracker, which finds the beats of music without any and is no language model."""
DYNAMICS = "dynamics"
"""Folder of a dynamics model, which gives velocities to notes and is no language model."""
WORKS = "WORKS.csv"
"""Table of the works that a model was trained and validated on, beside a model that left its artifacts behind."""


def names() -> list[str]:
    """Names of the bundled language models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def model_path(name_or_path: str | Path, files: tuple[str, ...] = hub.FETCHED) -> Path:
    """The directory of a bundled model for its name, of one on the Hugging Face hub for `user/name`, else the path.

    The bundled models are the language models and `DYNAMICS`.

    A directory of the same name in the working directory is `./name`.

    Args:
        name_or_path: Only a text can be the name of a model on the hub; a `Path` is a path.
        files: Patterns of the files that are fetched from the hub.

    Raises:
        UserError: The hub has no such model, or cannot be reached.
    """
    if str(name_or_path) in (*names(), DYNAMICS):
        return FOLDER / name_or_path
    return hub.fetch(str(name_or_path), files) if hub.is_hub_name(name_or_path) else Path(name_or_path)


def tracker_path(name_or_path: str | Path) -> Path:
    """The folder `BEATS` of this package for its name, whether or not it has a tracker; any other path as it is."""
    return FOLDER / BEATS if str(name_or_path) == BEATS else Path(name_or_path).expanduser()
