"""The published layout end to end: `experiment=published`, and what other software brings of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pianolm import PianoLM, PianoTokenizer
from pianolm.data.token_store import TokenStore
from pianolm.run import execute
from pianolm.tokenizer.velocity.frame import FrameCodec
from pianolm.tokenizer.vocabulary import Kind
from tests.setups import without_pictures_drawn
from tests.stages.playing import MIDI_ONLY
from tests.test_chain import only
from tests.tiny import tiny

RESERVED = range(4224, 4736)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the chain has run with `experiment=published`."""
    root = tmp_path_factory.mktemp("published")
    settings = ("experiment=published", "stage=generate", *MIDI_ONLY, "generate.pieces=3")
    with without_pictures_drawn():
        execute(tiny(root, *settings), root / "run")
    return root


def test_no_sequence_has_a_reserved_id(published: Path) -> None:
    for mode in ("base", "velocity"):
        store = TokenStore.open(only(published, "tokenize", mode))
        tokens = np.asarray(store.tokens)
        assert tokens.size > 1000
        assert not np.isin(tokens, RESERVED).any(), mode
    lm = PianoLM.from_pretrained(only(published, "finetune"))
    for piece in lm.generate_pieces(pieces=3, beats=6, seed=2):
        assert not np.isin(piece.ids, RESERVED).any()
    assert json.loads((published / "run" / "metrics.json").read_text())["valid_fraction"] == 1.0


def test_each_beat_takes_the_bin_of_its_own_tempo(published: Path) -> None:
    """Bin k covers 10 k to 10 k + 10 BPM, whatever the errors of the beats before."""
    tokenizer = PianoTokenizer.from_pretrained(only(published, "finetune"))
    bpm = np.array([61.0, 69.9, 70.1, 119.0, 121.0])
    beats_sec = np.concatenate([[0.0], np.cumsum(60 / bpm)])
    assert tokenizer.tempo.encode(beats_sec).tolist() == [6, 6, 7, 11, 12]
    assert tokenizer.tempo.bpm[[6, 7]].tolist() == [65.0, 75.0]


def test_its_parts_are_three_learned_levels_and_the_vq_vae(published: Path) -> None:
    tokenizer = PianoTokenizer.from_pretrained(only(published, "finetune"))
    assert isinstance(tokenizer.codec, FrameCodec)
    masks = tokenizer.grammar.table
    assert (masks[:, Kind.L4] < 0).all(), "no state of the grammar allows an eighth-beat code"
    config = json.loads((only(published, "finetune") / "config.json").read_text())
    assert config["vocab_size"] == 4789
    record = json.loads((only(published, "codebook") / "artifact.json").read_text())
    assert record["metrics"]["method"] == "kmeans"
