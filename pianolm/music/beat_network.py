"""The network of the beat tracker, applied by NumPy; `pianolm.beat_tracking` trains it.

A stem reads the features at 50 frames a second; a trunk of dilated convolutions sees groups of four frames, 80 ms, over
more than half a minute to each side; the head adds both and gives the logits of beat and downbeat of every frame.

Shapes: T frames, P = T / 4 groups, F features, S stem width, W trunk width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pianolm.errors import UserError
from pianolm.json_file import read_object
from pianolm.music.beat_features import FEATURES

WEIGHTS_FILE, CONFIG_FILE = "network.safetensors", "network.json"
FORMAT = "pianolm beats 1"
GROUP = 4
"""Frames that the trunk sees as one."""
STEM_TAPS, TRUNK_TAPS = 5, 3
NORM_EPSILON = 1e-6
_MOST_WIDTH, _MOST_BLOCKS, _MOST_DILATION = 1024, 64, 4096
_WINDOW_GROUPS = 6000
"""Groups computed at a time, eight minutes; limits memory."""
_SCALE = ".scale"
"""Ending of the name of a matrix's scales: what each row of a matrix in 8 bits is multiplied by."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class NetworkSizes:
    """Sizes of the network.

    Attributes:
        stem: S.
        width: W.
        dilations: Distance in groups between the taps of each block of the trunk.
    """

    stem: int
    width: int
    dilations: tuple[int, ...]

    @property
    def reach(self) -> int:
        """Groups to each side that the logits of a frame depend on."""
        stem_and_head = 2 * (STEM_TAPS // 2) / GROUP
        return sum(self.dilations) * (TRUNK_TAPS // 2) + int(np.ceil(stem_and_head)) + 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, by its name in torch and in the file."""
        s, w = self.stem, self.width
        linear = {
            "input": (s, FEATURES),
            "stem": (s, STEM_TAPS * s),
            "down": (w, GROUP * s),
            "up": (GROUP * s, w),
            "head": (s, STEM_TAPS * s),
            "output": (2, s),
        }
        norms = {"up_norm.weight": (w,)}
        for i in range(len(self.dilations)):
            linear |= {f"blocks.{i}.conv": (w, TRUNK_TAPS * w), f"blocks.{i}.mix": (w, w)}
            norms[f"blocks.{i}.norm.weight"] = (w,)
        weights = {f"{name}.weight": shape for name, shape in linear.items()}
        return {**weights, **{f"{name}.bias": shape[:1] for name, shape in linear.items()}, **norms}


class BeatNetwork:
    """The network with its weights.

    Args:
        sizes: Sizes.
        tensors: Weights by name, of the shapes that `sizes.shapes()` gives.
    """

    def __init__(self, sizes: NetworkSizes, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.sizes = sizes
        self.tensors = {
            name: np.ascontiguousarray(tensors[name], np.float32) for name in sorted(sizes.shapes())
        }

    @classmethod
    def from_directory(cls, directory: str | Path) -> BeatNetwork:
        """Loads what stage beats published, or a bundled tracker.

        Raises:
            UserError: A file is missing, is of another format, or the two do not fit each other.
        """
        directory = Path(directory)
        sizes = _read_sizes(directory / CONFIG_FILE)
        weights = directory / WEIGHTS_FILE
        try:
            tensors = _restored(load_file(weights))
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(
                f"{weights}: no readable weights of a beat tracker ({error}); give a directory published by stage=beats"
            ) from error
        found = {name: tensor.shape for name, tensor in tensors.items()}
        expected = sizes.shapes()
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise UserError(
                    f"{weights}: tensor {name} has shape {found.get(name)}, {CONFIG_FILE} beside it expects "
                    f"{expected.get(name)}; give both files of one stage=beats artifact"
                )
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise UserError(f"{weights}: a weight is not a finite number; train it again with stage=beats")
        return cls(sizes, tensors)

    def save(self, directory: Path, eight_bits: Collection[str] = ()) -> None:
        """Writes the weights in 16 bits, and the sizes, as `from_directory` reads them.

        Args:
            directory: Gets both files.
            eight_bits: Names of matrices that are written in 8 bits, with a scale for each row.
        """
        stored: dict[str, NDArray[Any]] = {}
        for name, tensor in self.tensors.items():
            if name in eight_bits:
                scale = (np.maximum(np.abs(tensor).max(axis=1), 1e-6) / 127).astype(np.float32)
                stored[name] = np.rint(tensor / scale[:, None]).astype(np.int8)
                stored[name + _SCALE] = scale
            else:
                stored[name] = tensor.astype(np.float16)
        save_file(stored, directory / WEIGHTS_FILE)
        config = {"format": FORMAT, **asdict(self.sizes)}
        (directory / CONFIG_FILE).write_text(json.dumps(config) + "\n", "utf-8")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of sizes and weights."""
        digest = hashlib.sha256(json.dumps(asdict(self.sizes)).encode())
        for name, tensor in self.tensors.items():
            digest.update(name.encode())
            digest.update(tensor.tobytes())
        return digest.hexdigest()[:16]

    def logits(self, features_TF: Floats) -> Floats:
        """[T, 2] logits of beat and downbeat of every frame.

        Long music is computed in windows that overlap by the network's reach, with the same result.
        """
        n_frames = len(features_TF)
        groups = -(-n_frames // GROUP)
        padded = np.zeros((groups * GROUP, FEATURES), np.float32)
        padded[:n_frames] = features_TF
        parts = []
        for start in range(0, groups, _WINDOW_GROUPS):
            stop = min(start + _WINDOW_GROUPS, groups)
            first, last = max(start - self.sizes.reach, 0), min(stop + self.sizes.reach, groups)
            window = self._forward(padded[first * GROUP : last * GROUP])
            parts.append(window[(start - first) * GROUP : (stop - first) * GROUP])
        return np.concatenate(parts)[:n_frames]

    def _forward(self, features_TF: Floats) -> Floats:
        s = self.sizes.stem
        stem_TS = _relu(self._linear("input", features_TF))
        stem_TS += _relu(self._convolve("stem", stem_TS, STEM_TAPS, 1))
        trunk_PW = self._linear("down", stem_TS.reshape(-1, GROUP * s))
        for i, dilation in enumerate(self.sizes.dilations):
            normed = self._norm(f"blocks.{i}.norm", trunk_PW)
            hidden = _relu(self._convolve(f"blocks.{i}.conv", normed, TRUNK_TAPS, dilation))
            trunk_PW += self._linear(f"blocks.{i}.mix", hidden)
        stem_TS += self._linear("up", self._norm("up_norm", trunk_PW)).reshape(-1, s)
        return self._linear("output", _relu(self._convolve("head", stem_TS, STEM_TAPS, 1)))

    def _linear(self, name: str, x: Floats) -> Floats:
        y: Floats = x @ self.tensors[f"{name}.weight"].T
        y += self.tensors[f"{name}.bias"]
        return y

    def _convolve(self, name: str, x_TC: Floats, taps: int, dilation: int) -> Floats:
        """Convolution over time with zeros beyond both ends, as a product for each tap."""
        weight = self.tensors[f"{name}.weight"]
        length, channels = x_TC.shape
        y = np.repeat(self.tensors[f"{name}.bias"][None], length, axis=0)
        for tap in range(taps):
            shift = (tap - taps // 2) * dilation
            if abs(shift) < length:
                source = x_TC[max(shift, 0) : length + min(shift, 0)]
                part = weight[:, tap * channels : (tap + 1) * channels]
                y[max(-shift, 0) : length - max(shift, 0)] += source @ part.T
        return y

    def _norm(self, name: str, x: Floats) -> Floats:
        mean_square = np.einsum("tc,tc->t", x, x)[:, None] / x.shape[1]
        y: Floats = x / np.sqrt(mean_square + np.float32(NORM_EPSILON)) * self.tensors[f"{name}.weight"]
        return y


def _restored(stored: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The tensors of a file; those that have scales are multiplied by them, row by row.

    Raises:
        ValueError: A matrix and its scales do not fit each other.
    """
    tensors = {name: tensor for name, tensor in stored.items() if not name.endswith(_SCALE)}
    for name in stored.keys() - tensors.keys():
        matrix = name.removesuffix(_SCALE)
        if matrix not in tensors or tensors[matrix].shape[:1] != stored[name].shape:
            raise ValueError(f"{name} has no matrix of as many rows")
        tensors[matrix] = tensors[matrix] * stored[name][:, None]
    return tensors


def _relu(x: Floats) -> Floats:
    return np.maximum(x, 0, out=x)


def _read_sizes(path: Path) -> NetworkSizes:
    config = read_object(path, "give a directory published by stage=beats")
    try:
        found_format = config["format"]
        sizes = NetworkSizes(config["stem"], config["width"], tuple(config["dilations"]))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: no readable beat tracker ({error}); give a directory published by stage=beats"
        ) from error
    whole = (sizes.stem, sizes.width, *sizes.dilations)
    is_valid = (
        found_format == FORMAT
        and all(type(number) is int and number >= 1 for number in whole)
        and max(sizes.stem, sizes.width) <= _MOST_WIDTH
        and len(sizes.dilations) <= _MOST_BLOCKS
        and max(sizes.dilations, default=1) <= _MOST_DILATION
    )
    if not is_valid:
        raise UserError(
            f"{path}: format {found_format!r} with {sizes} found, expected {FORMAT!r} with at most {_MOST_BLOCKS} "
            f"blocks, widths of 1 to {_MOST_WIDTH} and dilations of 1 to {_MOST_DILATION}; give a directory published "
            "by stage=beats"
        )
    return sizes
