"""Files that the cell store and the token store consist of: growing .npy files, mapped arrays, the marker file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pianolm.errors import UserError


class NpyWriter:
    """Appends to a one-dimensional .npy file; the header has the length once the file is closed."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._file: BinaryIO = path.open("wb")
        self._count = 0
        self._header_bytes = self._write_header()

    def append(self, values: NDArray[Any]) -> None:
        """Adds values [N]."""
        self._file.write(np.ascontiguousarray(values, self._dtype).tobytes())
        self._count += values.size

    def close(self) -> None:
        """Writes the length into the header."""
        self._file.seek(0)
        header_bytes = self._write_header()
        assert header_bytes == self._header_bytes, (
            "numpy pads the header, so that the length can grow in place"
        )
        self._file.close()

    def _write_header(self) -> int:
        description = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": description, "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()


def map_array(path: Path, stage: str) -> NDArray[Any]:
    """Maps a .npy file.

    Args:
        path: The file.
        stage: Stage that writes it, for the error message.

    Raises:
        UserError: It is missing or damaged.
    """
    repair = f"run stage={stage} force=true"
    if not path.is_file():
        raise UserError(f"{path}: missing from the store; {repair}")
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except ValueError as error:
        if "empty" not in str(error):
            raise UserError(f"{path}: truncated or damaged ({error}); {repair}") from error
        return np.load(path)  # an array of length 0 cannot be mapped


def read_marker(marker: Path, name: str, version: int, stage: str) -> dict[str, Any]:
    """Reads the JSON file that a store writes last, so that an interrupted store has none.

    Args:
        marker: The file.
        name: Expected value of `format`.
        version: Expected value of `version`.
        stage: Stage that writes the store, for the error message.

    Raises:
        UserError: It is missing, or of another format or version.
    """
    if not marker.is_file():
        raise UserError(
            f"{marker.parent}: no {marker.name}, so this is no complete store of {name}; "
            f"expected a directory published by stage={stage}"
        )
    try:
        content: dict[str, Any] = json.loads(marker.read_text("utf-8"))
        found = (content["format"], content["version"])
    except (ValueError, KeyError, TypeError):
        found = ("an unknown format", "?")
    if found != (name, version):
        raise UserError(
            f"{marker}: {found[0]} of version {found[1]} found, expected {name} of version {version}; "
            f"run stage={stage}"
        )
    return content
