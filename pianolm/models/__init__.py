"""Models in the box: trained models that come with the package, a folder each, with a card (`README.md`)."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
"""A folder in it that holds `config.json` is a model."""
DEFAULT = "pop"
"""The model that `stage=generate` plays where nothing asks for another one."""


def names() -> list[str]:
    """Names of the models in the box."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def model_path(name_or_path: str | Path) -> Path:
    """The directory of a model in the box for its name; any other path as it is.

    A directory of the same name in the working directory is `./name`.
    """
    return FOLDER / name_or_path if str(name_or_path) in names() else Path(name_or_path)
