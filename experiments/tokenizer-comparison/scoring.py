"""Bits per note of validation performances, by kind of token, and what the tokens leave out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from corpus import Corpus, Ids
from numpy.typing import NDArray
from representations import GROUPS, PianoTokens, Tokens, left_out, performance, worth
from transformers import LlamaForCausalLM

from pianolm.evaluation.bits import UNCONSTRAINED, TokenizedPiece, score_pieces
from pianolm.tokenizer.token_mask import TokenMasks


class TokenBits(NamedTuple):
    """Bits [T] of the tokens of a piece: among all ids, among those of their token masks, and of tempo values."""

    unconstrained: NDArray[np.float64]
    constrained: NDArray[np.float64]
    tempo: NDArray[np.float64]


def score(model: LlamaForCausalLM, tokens: Tokens, pieces: list[Ids]) -> list[TokenBits]:
    """Scores every token of some pieces once; windows start half of the context apart, at any token.

    Given tokens have no bits.
    """
    tokenized = (
        TokenizedPiece(
            ids, token_masks={"constrained": tokens.token_masks(ids), "tempo": tempo_masks(tokens, ids)}
        )
        for ids in pieces
    )
    scores = score_pieces(model.eval(), tokenized)
    return [
        TokenBits(bits[UNCONSTRAINED] * ~tokens.given(ids), bits["constrained"], bits["tempo"])
        for ids, bits in zip(pieces, scores, strict=True)
    ]


def tempo_masks(tokens: Tokens, ids: Ids) -> TokenMasks:
    """Masks whose bits are those of the tempo's value: all tempi at a tempo, elsewhere the token itself (0 bits).

    The other bits of a tempo say that a beat is over, which other tokenizations express by their positions.
    """
    is_tempo_V = np.isin(tokens.type_V, [i for i, name in enumerate(tokens.types) if name.lower() == "tempo"])
    each_V = np.arange(is_tempo_V.size)
    return TokenMasks.from_masks(is_tempo_V if is_tempo_V[token] else each_V == token for token in ids)


def figures(model: LlamaForCausalLM, tokens: Tokens, corpus: Corpus) -> dict[str, Any]:
    """The figures of a row: bits per note among all ids and constrained, by group and type, and what is left out."""
    scored = corpus.encoded(tokens, corpus.validation)
    pieces = [performance(corpus.store, index) for index in corpus.validation]
    notes, seconds = sum(piece.notes.size for piece in pieces), sum(piece.seconds for piece in pieces)
    bits = score(model, tokens, scored)
    assert all(np.isfinite(piece.constrained).all() for piece in bits), "each token is in its token mask"
    tempo = float(sum(piece.tempo.sum() for piece in bits))
    by_type = bits_by_type(tokens, scored, [piece.unconstrained for piece in bits], tempo)
    constrained = bits_by_type(tokens, scored, [piece.constrained for piece in bits], tempo)
    with_velocity = by_type.get("velocity", by_type.get("Velocity", 0.0)) > 0
    errors = [left_out(p, tokens.decode(ids), with_velocity) for p, ids in zip(pieces, scored, strict=True)]
    joined = {key: np.concatenate([piece[key] for piece in errors]) for key in errors[0]}
    tied = 0.0
    if isinstance(tokens, PianoTokens):
        tied = sum(float(b.constrained[tokens.tied(ids)].sum()) for ids, b in zip(scored, bits, strict=True))
    return {
        **per_note(by_type, tokens, notes),
        "constrained": per_note(constrained, tokens, notes),
        "tied": tied / notes,
        "tokens_per_note": sum(ids.size for ids in scored) / notes,
        "left_out": what_is_left_out(joined),
        "validation": {
            "pieces": len(pieces),
            "works": len(corpus.works(corpus.validation)),
            "notes": notes,
            "seconds": round(seconds, 1),
        },
        "training": {"pieces": len(corpus.train), "works": len(corpus.works(corpus.train))},
        "prepared": corpus.fingerprint,
    }


def what_is_left_out(errors: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    """Of the errors of `left_out`: shares of notes, and bits per note at most.

    Those of onsets also tell how many notes each decoded note stands for.
    """
    none, notes = np.zeros_like(errors["onset"]), errors["notes"]
    of_counts = worth(notes, np.zeros_like(notes)) * notes.size / max(none.size, 1)
    return {
        "lost_notes": int(errors["lost"].sum()),
        "merged_notes": int(np.maximum(notes - 1, 0).sum()),
        "onsets_inexact": float((errors["onset"] != 0).mean()),
        "onsets_worth": worth(errors["onset"], none) + of_counts,
        "ends_inexact": float((errors["end"] != 0).mean()),
        "ends_worth": worth(errors["end"], errors["long"]),
        "velocities_inexact": float((errors["velocity"] != 0).mean()),
        "velocities_worth": worth(errors["velocity"], errors["crowd"]),
    }


def bits_by_type(
    tokens: Tokens, pieces: list[Ids], bits: list[NDArray[np.float64]], tempo: float
) -> dict[str, float]:
    """Bits of pieces [T] by type of token; those of tempi beyond their value, `tempo`, are called `beat`."""
    sums = np.zeros(len(tokens.types))
    for ids, bits_T in zip(pieces, bits, strict=True):
        sums += np.bincount(tokens.type_V[ids], bits_T, len(sums))
    found = dict(zip(tokens.types, sums.tolist(), strict=True))
    for kind in tokens.types:
        if kind.lower() == "tempo":
            found |= {"beat": found[kind] - tempo, kind: tempo}
    return found


def per_note(bits: dict[str, float], tokens: Tokens, notes: int) -> dict[str, Any]:
    """Bits per note in total, by group and by type."""
    by_group = dict.fromkeys(GROUPS, 0.0)
    for kind, value in bits.items():
        by_group["time" if kind == "beat" else tokens.group[kind]] += value
    return {
        "bits_per_note": sum(bits.values()) / notes,
        **{group: value / notes for group, value in by_group.items()},
        "by_type": {kind: value / notes for kind, value in bits.items() if value},
    }
