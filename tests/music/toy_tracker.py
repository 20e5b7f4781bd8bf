"""A beat tracker with weights set by hand: every struck bass note is a beat, a long one a downbeat."""

from __future__ import annotations

import numpy as np

from pianolm.music.beat_features import FEATURES
from pianolm.music.beat_network import BeatNetwork, NetworkSizes

SIZES = NetworkSizes(stem=4, width=6, dilations=(1, 2))
_BASS, _BASS_DURATION = FEATURES - 4, FEATURES - 3


def random_network(seed: int = 0, sizes: NetworkSizes = SIZES) -> BeatNetwork:
    rng = np.random.default_rng(seed)
    return BeatNetwork(sizes, {name: 0.3 * rng.normal(size=shape) for name, shape in sizes.shapes().items()})


def bass_tracker() -> BeatNetwork:
    """Logits of −4, and about +4 at a bass note of any length, and at one of at least a second."""
    tensors = {name: np.zeros(shape) for name, shape in SIZES.shapes().items()}
    tensors["input.weight"][0, _BASS] = 1  # relu(x) in the stem's first two channels
    tensors["input.weight"][1, _BASS_DURATION] = 1
    tensors["head.weight"][0, 2 * SIZES.stem + 0] = 1  # the middle of five taps
    tensors["head.weight"][1, 2 * SIZES.stem + 1] = 1
    tensors["output.weight"][0, 0] = 8
    tensors["output.weight"][1, 1] = 8
    tensors["output.bias"][:] = -4
    return BeatNetwork(SIZES, tensors)
