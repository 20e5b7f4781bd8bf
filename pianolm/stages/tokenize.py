"""Stage `tokenize`: assembles the tokenizer and turns cells into ids.

Reads `tokenizer.*`. Needs the cell store, and either a tokenizer (`upstream.tokenizer`) or a codebook and, in velocity
mode, a velocity codec. The codebook may be a file of other software. Publishes a token store with `tokenizer/` in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.data.cell_store import CellStore
from pianolm.data.file_progress import with_progress
from pianolm.data.kept_results import KeptResults
from pianolm.data.token_store import TokenStoreWriter
from pianolm.errors import UserError
from pianolm.stage import Metrics, Need, Stage, StageContext
from pianolm.tokenizer.codebook_file import import_codebook
from pianolm.tokenizer.config import TokenizerSettings
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.velocity import VelocityCodec, check_codec_path

_LAYOUT = ("ties", "bars", "tempo", "exact")
"""Settings that a given tokenizer brings itself."""


def run(ctx: StageContext) -> Metrics:
    """Tokenizes every piece of the cell store into `ctx.out`."""
    tokenizer = build_tokenizer(ctx.cfg["tokenizer"], ctx.upstream)
    tokenizer.save_pretrained(ctx.out / "tokenizer")
    store = CellStore.open(ctx.upstream["cells"])
    kept = KeptResults[NDArray[np.uint16]](ctx.work, [row.id for row in store.pieces], ctx.cfg)
    if kept.count:
        print(
            f"tokenize: goes on; an earlier run has encoded {kept.count:,} of {len(store):,} pieces",
            flush=True,
        )
    start = time.perf_counter()
    tokens = notes = 0
    with TokenStoreWriter(ctx.out, tokenizer) as writer:
        encoded = kept.complete(lambda missing: _encode(tokenizer, store, missing))
        for row, ids in zip(
            store.pieces, with_progress(encoded, len(store), "tokenize: encodes"), strict=True
        ):
            writer.add(row, ids)
            tokens, notes = tokens + ids.size, notes + row.notes
    seconds = max(time.perf_counter() - start, 1e-9)
    new_notes = sum(row.notes for row in store.pieces[kept.count :])
    return {
        "tokens": tokens,
        "tokens_per_note": tokens / max(notes, 1),
        "notes_per_second": round(new_notes / seconds),
    }


def _encode(
    tokenizer: PianoTokenizer, store: CellStore, indices: Iterable[int]
) -> Iterator[NDArray[np.uint16]]:
    """The ids of the pieces with the given indices."""
    for index in indices:
        beats_sec = np.asarray(store.beats_sec(index))
        ids = tokenizer.encode_cells(store.cells(index), beats_sec, store.bar_starts(index))
        yield ids.astype(np.uint16)  # as the store has them


def build_tokenizer(settings: Mapping[str, Any], upstream: Mapping[str, Path]) -> PianoTokenizer:
    """The tokenizer that was given, or one from a codebook and a velocity codec.

    Args:
        settings: The configuration group `tokenizer`.
        upstream: Paths by role: `tokenizer`, or `codebook` and, in velocity mode, `velvq`.

    Raises:
        UserError: A setting has an unknown value, a part does not fit, or the given tokenizer has other settings.
    """
    wanted = TokenizerSettings.from_dict(settings)
    if "tokenizer" in upstream:
        return _given_tokenizer(wanted, upstream["tokenizer"])
    path = upstream["codebook"]
    path = path / "codebook.npz" if path.is_dir() else path
    codebook, repairs = import_codebook(path, wanted.vocabulary)
    if any(repairs):
        print(f"tokenize: {repairs.sentence(path)}", flush=True)
    return PianoTokenizer(
        codebook,
        TempoBins(wanted.tempo, wanted.vocabulary.tempo),
        VelocityCodec.from_directory(upstream["velvq"]) if wanted.mode == "velocity" else None,
        ties=wanted.ties,
        bars=wanted.bars,
        exact=wanted.exact,
    )


def _given_tokenizer(wanted: TokenizerSettings, path: Path) -> PianoTokenizer:
    """The tokenizer of a directory, in the mode wanted; settings at their default do not contradict it."""
    given, default = PianoTokenizer.from_pretrained(path), TokenizerSettings()
    other = [
        name
        for name in _LAYOUT
        if getattr(wanted, name) not in (getattr(default, name), getattr(given.settings, name))
    ]
    if other:
        found = ", ".join(f"{name}={getattr(given.settings, name)}" for name in other)
        asked = ", ".join(f"tokenizer.{name}={getattr(wanted, name)}" for name in other)
        raise UserError(
            f"upstream.tokenizer={path}: made with {found}, but {asked} is asked for; leave that out to take the "
            "tokenizer as it is, or leave upstream.tokenizer out to build another"
        )
    if given.mode == wanted.mode:
        return given
    if wanted.mode == "velocity":
        raise UserError(
            f"upstream.tokenizer={path}: made without velocities, but tokenizer.mode=velocity is asked for; give a "
            "tokenizer with a velocity codec or set tokenizer.mode=base"
        )
    return given.without_velocities()


def _needs(cfg: Mapping[str, Any]) -> dict[str, Need]:
    cells = {"cells": Need("prepare", given="cells")}
    if cfg["upstream"]["tokenizer"]:
        return {**cells, "tokenizer": Need("", given="tokenizer")}
    codebook = {**cells, "codebook": Need("codebook", given="codebook")}
    if cfg["tokenizer"]["mode"] == "base":
        return codebook
    return {**codebook, "velvq": Need("velvq", given="velvq")}


def _check(cfg: Mapping[str, Any]) -> None:
    """Refuses settings, a given codebook file and a given codec that cannot be used before anything is built."""
    settings = TokenizerSettings.from_dict(cfg["tokenizer"])
    codebook = Path(str(cfg["upstream"]["codebook"])).expanduser()
    if codebook.is_file():
        import_codebook(codebook, settings.vocabulary)
    if cfg["upstream"]["velvq"]:
        check_codec_path(cfg["upstream"]["velvq"])


STAGE = Stage(
    run,
    "Cells, codebook and velocity codec to tokens.",
    needs=_needs,
    settings=lambda cfg: {"tokenizer": cfg["tokenizer"]},
    version=3,
    check=_check,
    objective="tokens_per_note",
    headlines=("tokens",),
)
