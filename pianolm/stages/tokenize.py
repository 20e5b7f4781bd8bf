"""Stage `tokenize`: cells become ids; the tokenizer is put together and saved beside them.

Reads `tokenizer.*`. Needs the cell store, and either a tokenizer (`upstream.tokenizer`) or a codebook and, in
velocity mode, a velocity codec. Publishes a token store with `tokenizer/` in it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pianolm.data.cell_store import CellStore
from pianolm.data.token_store import TokenStoreWriter
from pianolm.errors import UserError
from pianolm.stage import Metrics, StageContext
from pianolm.tokenizer.codebook import Codebook
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.tokenizer import MODES, OPTIONS, PianoTokenizer
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.vocabulary import Vocabulary

VERSION = 1


def run(ctx: StageContext) -> Metrics:
    """Tokenizes every piece of the cell store into `ctx.out`."""
    tokenizer = build_tokenizer(ctx.cfg["tokenizer"], ctx.upstream)
    tokenizer.save_pretrained(ctx.out / "tokenizer")
    store = CellStore.open(ctx.upstream["cells"])
    start = time.perf_counter()
    tokens = notes = 0
    with TokenStoreWriter(ctx.out, tokenizer) as writer:
        for index, row in enumerate(store.pieces):
            beats_sec = np.asarray(store.beats_sec(index))
            ids = tokenizer.encode_cells(store.cells(index), beats_sec, store.bar_starts(index))
            writer.add(row, ids)
            tokens, notes = tokens + ids.size, notes + row.notes
    return {
        "tokens": tokens,
        "tokens_per_note": tokens / max(notes, 1),
        "notes_per_second": round(notes / max(time.perf_counter() - start, 1e-9)),
    }


def _refuse_options(settings: Mapping[str, Any], given: PianoTokenizer, path: Path) -> None:
    """Raises UserError where an option is asked for that a given tokenizer does not have."""
    asked = {name: settings.get(name, usual) for name, usual in OPTIONS.items()}
    if settings["mode"] == "base":
        del asked["held_velocity"]  # there are none
    other = [name for name, value in asked.items() if value not in (OPTIONS[name], getattr(given, name))]
    if other:
        found = ", ".join(f"{name}={getattr(given, name)}" for name in other)
        wanted = ", ".join(f"tokenizer.{name}={asked[name]}" for name in other)
        raise UserError(
            f"upstream.tokenizer={path}: made with {found}, but {wanted} is asked for; leave that out to take it as it "
            "is, or leave upstream.tokenizer out to make another"
        )


def build_tokenizer(settings: Mapping[str, Any], upstream: Mapping[str, Path]) -> PianoTokenizer:
    """The tokenizer that was given, or one from a codebook and a codec.

    Raises:
        UserError: A setting is unknown, a part does not fit, or the given tokenizer is of the other mode.
    """
    mode = settings["mode"]
    if mode not in MODES:
        raise UserError(f"tokenizer.mode={mode!r} found, expected one of {', '.join(MODES)}")
    if "tokenizer" in upstream:
        given = PianoTokenizer.from_pretrained(upstream["tokenizer"])
        _refuse_options(settings, given, upstream["tokenizer"])
        if given.mode == mode:
            return given
        if mode == "velocity":
            raise UserError(
                f"upstream.tokenizer={upstream['tokenizer']}: made without velocities, but tokenizer=velocity is "
                "asked for; give a tokenizer with a velocity codec or use tokenizer=base"
            )
        return PianoTokenizer(
            given.codebook,
            given.tempo,
            exact=given.exact,
            tolerance=given.tolerance,
            pitch_order=given.pitch_order,
            bars=given.bars,
            held=given.held,
        )
    vocabulary = Vocabulary.from_dict(dict(settings["vocabulary"]))
    path = upstream["codebook"]
    codec = VelocityCodec.from_directory(upstream["velvq"]) if mode == "velocity" else None
    return PianoTokenizer(
        Codebook.load(path / "codebook.npz" if path.is_dir() else path, vocabulary),
        TempoBins(settings["tempo"], vocabulary.tempo),
        codec,
        exact=bool(settings["exact"]),
        tolerance=int(settings["tolerance"]),
        held_velocity=bool(settings["held_velocity"]),
        pitch_order=settings["pitch_order"],
        bars=bool(settings["bars"]),
        held=settings["held"],
    )
