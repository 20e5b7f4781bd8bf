"""How long what sounds on over a beat line has sounded, in steps that grow with it (`tokenizer.held=ages`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LAST_FRAMES = np.array([3, 6, 9, 12, 18, 24, 36, 48, 60, 72, 96, 144, 192, 288, 384])
"""The longest of each age but the last, which has no end."""
AGES = _LAST_FRAMES.size + 1
"""How many are told apart."""
LONGEST_FRAMES = int(_LAST_FRAMES[-1]) + 1
"""No one counts further."""


def age_numbers(frames: NDArray[np.integer]) -> NDArray[np.int64]:
    """[n] which age, from 0, some lengths [n] in frames are."""
    return np.searchsorted(_LAST_FRAMES, frames)


def shortest_frames(number: int) -> int:
    """The shortest length of an age."""
    return int(_LAST_FRAMES[number - 1]) + 1 if number else 1
