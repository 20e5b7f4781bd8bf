"""The interface of velocity codecs, and their files: `codec.safetensors` and `config.json`.

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
from pianolm.json_file import read_object
from pianolm.music.cells import Cells

WEIGHTS_FILE, CONFIG_FILE = "codec.safetensors", "config.json"
MOST_CODES = 2**16
"""Largest codebook that is read."""
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
"""Endings of files that other software saves models in; reading one can run any code."""
FORMS = {"segment": "SegmentCodec", "frame": "FrameCodec"}
"""Class of each form, in `pianolm.tokenizer.velocity.<form>`."""


@dataclass(frozen=True, eq=False)
class VelocityCodec(ABC):
    """Encodes the velocities of a cell as one code, and decodes a code beside the pattern of its cell.

    Attributes:
        form: Name of the form, a key of `FORMS`.
        config: Content of config.json: `form`, `codebook_size` and the settings of the form.
        tensors: Weights by name.
    """

    form: ClassVar[str]

    config: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]

    @staticmethod
    def from_directory(directory: str | Path) -> VelocityCodec:
        """Loads an artifact of stage velvq, given its directory or the weights file in it.

        Raises:
            UserError: A file is missing, is of another format, or the two do not fit each other.
        """
        directory = check_codec_path(directory)
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
        if problem := codec.tensor_problem():
            raise UserError(f"{weights}: {problem}; give a directory as stage=velvq published it")
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
        """Number of codes K."""
        return int(self.config["codebook_size"])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of configuration and weights."""
        digest = hashlib.sha256(json.dumps(dict(self.config), sort_keys=True).encode())
        for name in sorted(self.tensors):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.tensors[name]).tobytes())
        return digest.hexdigest()[:16]

    @abstractmethod
    def encode(self, cells: Cells) -> NDArray[np.int64]:
        """[C] velocity codes of cells. The code of a cell does not depend on the other cells."""

    @abstractmethod
    def decode(
        self, codes: NDArray[np.integer], sustain: NDArray[np.uint64], onset: NDArray[np.uint64]
    ) -> NDArray[np.uint8]:
        """Segment velocities of cells.

        Args:
            codes: [C] any codes in 0 … K − 1.
            sustain: [C] masks as in `Cells`.
            onset: [C] masks as in `Cells`.

        Returns:
            [S] uint8, 1–127: the segments of a cell lie together, in time order.
        """

    @classmethod
    @abstractmethod
    def setting_problem(cls, config: Mapping[str, Any]) -> str:
        """What is wrong with the settings of config.json that the form reads; empty where they are right."""

    @abstractmethod
    def tensor_problem(self) -> str:
        """What is wrong with the values of the tensors, whose shapes are right; empty where they are right."""

    @abstractmethod
    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor according to config.json."""

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
            "codes lie within the codebook"
        )


def check_codec_path(path: str | Path) -> Path:
    """The path of a codec, unless it is a file of a kind that is never read.

    Raises:
        UserError: It is a PyTorch file or another pickle, or some other file than weights of a codec.
    """
    path = Path(path)
    if path.suffix.lower() in _PICKLES or (path.is_file() and path.suffix != ".safetensors"):
        raise UserError(
            f"upstream.velvq={path}: a {path.suffix or 'plain'} file found, expected a directory published by "
            f"stage=velvq, with {WEIGHTS_FILE} and {CONFIG_FILE}; pickled models are not read, so train the codec with "
            "stage=velvq velvq=frame, or export yours into these two files"
        )
    return path


def whole_problem(config: Mapping[str, Any], key: str, most: int) -> str:
    """Says of a setting that it is not a whole number from 1 to `most`; empty where it is one."""
    value = config.get(key)
    if type(value) is int and 1 <= value <= most:
        return ""
    return f"{key}={value!r} found, expected a whole number from 1 to {most}"


def _class_of(form: str) -> type[VelocityCodec]:
    module = importlib.import_module(f"pianolm.tokenizer.velocity.{form}")
    codec_class: type[VelocityCodec] = getattr(module, FORMS[form])
    return codec_class


def _read_config(path: Path) -> dict[str, Any]:
    """config.json of a codec, checked for form and keys."""
    config = read_object(path, "give a directory published by stage=velvq")
    form = config.get("form")
    if not isinstance(form, str) or form not in FORMS:
        raise UserError(
            f"{path}: a codec of form {form!r} found, expected one of {', '.join(FORMS)}; train one with stage=velvq"
        )
    if problem := _class_of(form).setting_problem(config):
        raise UserError(f"{path}: a codec of form {form!r}: {problem}; train it again with stage=velvq")
    return config
