"""Velocity codecs: one code for the velocities of a cell, read beside the cell's pattern. NumPy only.

`pianolm.velvq` trains them and exports them; here they are applied, so that tokenizing needs no torch. There are two
forms: `pianolm.tokenizer.velocity.segment` (the default) and `pianolm.tokenizer.velocity.frame` (the reference form).

Shapes: C cells, S segments, K codes.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pianolm.errors import UserError
from pianolm.music.cells import Cells

WEIGHTS_FILE, CONFIG_FILE = "codec.safetensors", "config.json"
FORMS = {"segment": "SegmentCodec", "frame": "FrameCodec"}
"""Class of each form, in `pianolm.tokenizer.velocity.<form>`."""


@dataclass(frozen=True, eq=False)
class VelocityCodec(ABC):
    """Encodes the velocities of cells as one code each and decodes them beside a pattern.

    Attributes:
        config: Content of config.json: `form`, `codebook_size` and what else the form needs.
        tensors: Weights by name.
    """

    form: ClassVar[str]
    needed: ClassVar[frozenset[str]]
    """Keys of config.json."""

    config: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]

    @staticmethod
    def from_directory(directory: str | Path) -> VelocityCodec:
        """Loads an artifact of stage velvq, given its directory or the weights file in it.

        Raises:
            UserError: A file is missing, is of another format, or the two do not fit each other.
        """
        directory = Path(directory)
        weights = directory if directory.suffix == ".safetensors" else directory / WEIGHTS_FILE
        config = _read_config(weights.parent / CONFIG_FILE)
        try:
            tensors = load_file(weights)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{weights}: no readable codec weights ({error}); give a directory published by stage=velvq"
            ) from error
        codec = _class_of(config["form"])(config, tensors)
        codec._check_shapes(weights)
        return codec

    def save(self, directory: str | Path) -> None:
        """Writes `codec.safetensors` and `config.json`, as `from_directory` reads them."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: np.ascontiguousarray(t) for name, t in self.tensors.items()}, directory / WEIGHTS_FILE
        )
        (directory / CONFIG_FILE).write_text(json.dumps(dict(self.config), indent=2) + "\n", "utf-8")

    @property
    def codebook_size(self) -> int:
        """K."""
        return int(self.config["codebook_size"])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what determines codes and velocities."""
        digest = hashlib.sha256(json.dumps(dict(self.config), sort_keys=True).encode())
        for name in sorted(self.tensors):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.tensors[name]).tobytes())
        return digest.hexdigest()[:16]

    @abstractmethod
    def encode(self, cells: Cells) -> NDArray[np.int64]:
        """[C] velocity codes of cells; the code of a cell does not depend on what it is encoded with."""

    @abstractmethod
    def decode(
        self, codes: NDArray[np.integer], sustain: NDArray[np.uint64], onset: NDArray[np.uint64]
    ) -> NDArray[np.uint8]:
        """Segment velocities of cells.

        Args:
            codes: [C] any codes in 0 … K − 1.
            sustain: [C] masks, normalised as those of `Cells`.
            onset: [C] masks, likewise.

        Returns:
            [S] uint8, 1–127: the segments of a cell lie together, in time order.
        """

    @abstractmethod
    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor that config.json asks for."""

    def _check_shapes(self, path: Path) -> None:
        """Raises UserError where tensors and config.json disagree."""
        expected = self.expected_shapes()
        found = {name: tensor.shape for name, tensor in self.tensors.items()}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise UserError(
                    f"{path}: tensor {name} has shape {found.get(name)}, {CONFIG_FILE} beside it expects "
                    f"{expected.get(name)}; give both files of one stage=velvq artifact"
                )

    def check_codes(self, codes: NDArray[np.integer]) -> None:
        """Asserts that codes lie in 0 … K − 1."""
        assert codes.size == 0 or 0 <= codes.min() <= codes.max() < self.codebook_size, (
            "codes within the codebook"
        )


def _class_of(form: str) -> type[VelocityCodec]:
    module = importlib.import_module(f"pianolm.tokenizer.velocity.{form}")
    found: type[VelocityCodec] = getattr(module, FORMS[form])
    return found


def _read_config(path: Path) -> dict[str, Any]:
    """config.json of a codec, checked for form and keys."""
    try:
        config = json.loads(path.read_text("utf-8"))
        form = config["form"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: no readable codec configuration ({error}); give a directory published by stage=velvq"
        ) from error
    if form not in FORMS:
        raise UserError(
            f"{path}: a codec of form {form!r}; expected one of {', '.join(FORMS)}; run stage=velvq"
        )
    lacking = sorted(_class_of(form).needed - config.keys())
    if lacking:
        raise UserError(
            f"{path}: a codec of form {form!r} without {', '.join(lacking)}; run stage=velvq again"
        )
    return dict(config)
