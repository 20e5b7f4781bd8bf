"""The labels of a bar's tokens are those of the tokenizer's ids, each in the column of its beat."""

from __future__ import annotations

import numpy as np
import pytest

from pianolm import PianoTokenizer, Piece
from pianolm.report.bar_tokens import arrange_tokens, beat_tokens
from pianolm.tokenizer.tempo import TempoBins
from tests.report.toys import OneCode, beat_times, random_cells, untrained_codebook


@pytest.mark.parametrize("codec", [None, OneCode()])
def test_the_tokens_drawn_are_those_of_the_tokenizer(codec: OneCode | None) -> None:
    tokenizer = PianoTokenizer(untrained_codebook(), TempoBins(), codec)
    cells = random_cells(4)
    ids = tokenizer.encode(Piece.from_cells(cells, beat_times())).ids
    beats = beat_tokens(tokenizer, ids, 0, cells.n_beats)
    kinds = [token.kind for tokens in beats for token in tokens]
    assert kinds == tokenizer.vocabulary.kind_of[ids[1:-1]].tolist()
    codes = [(b, t) for b, tokens in enumerate(beats) for t in tokens if t.label.startswith("L")]
    roll = np.zeros((cells.n_beats, 128), np.uint64)
    for beat, code in codes:
        roll[beat, code.pitch] |= np.uint64(code.sustain << (6 * code.eighth))
    assert np.array_equal(roll[cells.beat, cells.pitch], cells.sustain)
    assert len(beat_tokens(tokenizer, ids, 15, 1)) == 1
    for tokens in beats:
        placed = arrange_tokens(tokens, 2.5)
        assert [one.token for one in placed] == tokens
        assert max(one.left + one.width for one in placed) <= 2.5
