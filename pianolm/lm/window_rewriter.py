"""Training windows that are rewritten, so that a model learns more than to continue.

Shapes: T tokens of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

DRAWN = 7
"""Numbers that are drawn for a window."""


class Rewritten(NamedTuple):
    """What a window has become: T tokens at most.

    Attributes:
        ids: [T] its tokens.
        labels: [T] what is to be learned at the place of each; −100 for nothing.
    """

    ids: Ids
    labels: Ids


class Rewriter(Protocol):
    """Rewrites windows in some way, or leaves them as they are."""

    def sequence(self, tokens: Ids, drawn: NDArray[np.float64], flat: bool) -> Rewritten | None:
        """The rewritten window; None where it has not enough whole beats.

        Args:
            tokens: [T] the window.
            drawn: Random numbers from [0, 1), which decide everything.
            flat: Whether its velocities mean nothing.
        """


@dataclass(frozen=True)
class RewriterMix:
    """Rewrites shares of the windows, each in its own way, and leaves the rest as it is.

    Attributes:
        shares: Rewriters with the share of windows that each gets, at most 1 in all.
    """

    shares: tuple[tuple[Rewriter, float], ...]

    def sequence(self, tokens: Ids, drawn: NDArray[np.float64], flat: bool) -> Rewritten | None:
        """As `Rewriter.sequence`; the first of the [`DRAWN`] numbers chooses the rewriter, which gets the others."""
        bound = 0.0
        for rewriter, share in self.shares:
            bound += share
            if drawn[0] < bound:
                return rewriter.sequence(tokens, drawn[1:], flat)
        return None
