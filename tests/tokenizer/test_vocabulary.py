from __future__ import annotations

import pytest

from pianolm.errors import UserError
from pianolm.tokenizer.vocabulary import KIND_GROUPS, Kind, Vocabulary

VOCABULARY = Vocabulary()


def test_ids_are_those_of_the_design() -> None:
    layout = {kind: (VOCABULARY.offset(kind), VOCABULARY.count(kind)) for kind in Kind}
    assert VOCABULARY.size == 4789
    assert layout == {
        Kind.L1: (0, 2048),
        Kind.L2: (2048, 1024),
        Kind.L3: (3072, 512),
        Kind.PITCH: (3584, 128),
        Kind.VELOCITY: (3712, 512),
        Kind.L4: (4224, 377),
        Kind.PEDAL: (4601, 64),
        Kind.BAR: (4665, 8),
        Kind.GAP: (4673, 1),
        Kind.SUFFIX: (4674, 1),
        Kind.MIDDLE: (4675, 1),
        Kind.PREFIX: (4676, 1),
        Kind.RESERVED: (4677, 11),
        Kind.LOUDNESS: (4688, 8),
        Kind.DENSITY: (4696, 8),
        Kind.TUNING: (4704, 16),
        Kind.DURATION: (4720, 16),
        Kind.TEMPO: (4736, 50),
        Kind.BOS: (4786, 1),
        Kind.EOS: (4787, 1),
        Kind.PAD: (4788, 1),
    }
    assert (VOCABULARY.bos, VOCABULARY.eos, VOCABULARY.pad) == (4786, 4787, 4788)


@pytest.mark.parametrize("reserved", [377, 449, 484, 492, 500, 501])
def test_the_mark_of_a_prefix_takes_what_is_left(reserved: int) -> None:
    """It came last, and no id of vocabularies before it has moved."""
    small = Vocabulary(reserved=reserved)
    assert small.count(Kind.PREFIX) == (reserved > 500)
    assert small.count(Kind.MIDDLE) == (reserved >= 484)
    assert small.count(Kind.DENSITY) == min(max(reserved - 492, 0), 8)


def test_ids_are_described_by_kind_and_number() -> None:
    ids = (5, 2048, 3644, 4665, 4672, 4688, 4703, 4720, 4786, 4789)
    described = [VOCABULARY.describe(token) for token in ids]
    assert described == [
        "L1 5",
        "L2 0",
        "pitch 60",
        "bar 1",
        "bar 8",
        "loudness 1",
        "density 8",
        "duration 0",
        "BOS",
        "<4789: not an id>",
    ]


@pytest.mark.parametrize("sizes", [{"l1": 0}, {"pitch": 88}, {"reserved": 376}, {"l9": 3}, {"tempo": True}])
def test_an_impossible_vocabulary_is_one_sentence(sizes: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocabulary"):
        Vocabulary.from_dict(sizes)


def test_groups_do_not_overlap() -> None:
    kinds = [kind for group in KIND_GROUPS.values() for kind in group]
    assert len(kinds) == len(set(kinds))
