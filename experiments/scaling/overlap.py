"""Prints how much of the music each number of notes reaches, and which share of its tokens it sees a second time.

python overlap.py STORE    a tokenized artifact of POP909, such as point.py trains on
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from point import BATCH_TOKENS, NOTES, SEED, music_of

from experiments.recipe.trial import REFERENCE
from pianolm.data.token_store import TokenStore
from pianolm.lm.datamodule import TrainingOrder
from pianolm.lm.window_index import WindowIndex
from pianolm.lm.windows import Windows

CONTEXT = next(int(option.partition("=")[2]) for option in REFERENCE if option.startswith("loader.context="))


def times_seen(windows: Windows, tokens: int) -> np.ndarray:
    """[T] how often each token of a store of so many is a target of the windows."""
    change = np.zeros(tokens + 1, np.int64)
    np.add.at(change, windows.scored, 1)
    np.add.at(change, windows.stop, -1)
    return np.cumsum(change)[:-1]


def main(directory: Path) -> None:
    store = TokenStore.open(directory)
    music = music_of(store.pieces)
    rows = BATCH_TOKENS // CONTEXT
    index = WindowIndex(store, store.split("train"), CONTEXT)
    print(f"one pass: {index.training(SEED, 0).windows.inputs.sum():,} tokens for {music.tokens:,} of music")
    for notes in NOTES:
        steps = music.steps(music.asked_for(notes))
        batch = TrainingOrder(index, SEED, rows * steps).global_batch(0)
        seen = times_seen(batch.windows, store.tokens.size)
        reached, again = np.count_nonzero(seen), seen.sum() - np.count_nonzero(seen)
        print(
            f"{notes}: {steps} steps reach {reached / music.tokens:.1%} of the music; {again / seen.sum():.1%} of "
            "their tokens were seen before"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
