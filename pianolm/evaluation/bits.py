"""`evaluate=lm`: how many bits a language model needs for the performances of a data source.

Every token but BOS is scored once, by a window of the model's whole context: as the model says it, and as it says it
among the ids that the grammar allows there, which is how pianolm writes music. Of a model that learned with
`trainer.grammar=true` both are the latter, as it never learned what may not come.

Windows begin at most `evaluate.stride` tokens apart, so that of a context of C tokens each token sees at least
C + 1 − stride, or its piece from the beginning. The model's own tokenizer makes the tokens: the music may be other
music than it was trained on.

Shapes: T tokens of a piece, N beats, C inputs of a window (the context), B windows of a batch, V ids, D width.
"""

from __future__ import annotations

import csv
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaForCausalLM

from pianolm.data.cell_store import CellStore, PieceRow
from pianolm.data.token_store import beat_positions
from pianolm.errors import UserError
from pianolm.evaluation.selection import performances
from pianolm.generation.piano_lm import PianoLM
from pianolm.lm.embedding import inputs_and_head
from pianolm.lm.loss import CPU_CHUNK
from pianolm.lm.module import IGNORE, IN_GRAMMAR
from pianolm.stage import Metrics, StageContext
from pianolm.tokenizer.token_mask import LegalIds, legal_ids, unpacked
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import CODE_KINDS, Kind
from pianolm.training.trainer import keep_freed_memory, resolve_hardware, set_threads

GROUPS: dict[str, tuple[Kind, ...]] = {
    "tempo": (Kind.TEMPO, Kind.EOS),
    "pitch": (Kind.PITCH,),
    "pattern": CODE_KINDS,
    "velocity": (Kind.VELOCITY,),
    "bar": (Kind.BAR,),
    "age": (Kind.AGE,),
}
"""What the bits are spent on. EOS goes with the tempi: both say that a beat has no further cell."""

BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Inputs scored at a time; no figure depends on it."""
GPU_CHUNK = 8192
"""Targets whose logits are there at a time on a GPU: 160 MB of them, and as much again among the legal ids."""
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16, "16-mixed": torch.float16}
Watch = Callable[[Tensor, Tensor], None]
_COLUMNS = ("id", "path", "notes", "seconds", "tokens", "bits", "bits_per_note", "grammar_bits")


class Window(NamedTuple):
    """A run of a piece's tokens: inputs are `start` … `stop` − 2, targets that count `scored` … `stop` − 1."""

    start: int
    scored: int
    stop: int


def sliding_windows(n_tokens: int, begins: NDArray[np.int64], context: int, stride: int) -> Iterator[Window]:
    """Windows that score each of the targets 1 … `n_tokens` − 1 once.

    Args:
        n_tokens: T.
        begins: [N] ascending positions where a window should begin, 0 first. Where a beat is longer than the stride,
            a window begins inside it.
        context: C.
        stride: Most tokens from the beginning of one window to that of the next, 1 … C.
    """
    window = Window(0, 1, min(context + 1, n_tokens))
    while window.scored < window.stop:
        yield window
        at_most = window.start + stride
        beat = int(begins[np.searchsorted(begins, at_most, side="right") - 1])
        start = beat if beat > window.start else at_most
        window = Window(start, window.stop, min(start + context + 1, n_tokens))


class Given(NamedTuple):
    """A piece to score: its ids [T], at least 2; positions [N] where windows should begin; what may stand where."""

    ids: NDArray[np.int64]
    begins: NDArray[np.int64]
    legal: LegalIds


class TokenBits(NamedTuple):
    """Bits [T] of the tokens of a piece, 0 for the first, which is given: among all ids, and among the legal ones."""

    free: NDArray[np.float64]
    legal: NDArray[np.float64]


class _Job(NamedTuple):
    """A window of a piece, and where the bits of its tokens go."""

    given: Given
    bits: TokenBits
    window: Window


def token_bits(
    model: LlamaForCausalLM,
    pieces: Iterable[Given],
    stride: int,
    batch_tokens: int,
    watch: Watch | None = None,
) -> Iterator[TokenBits]:
    """What every token of some pieces costs, piece by piece.

    Args:
        model: In evaluation mode; its context is the longest sequence it was trained on.
        pieces: The music.
        stride: See `sliding_windows`.
        batch_tokens: Inputs scored at a time.
        watch: Is shown logits [n, V] and labels [n], every token once.
    """
    context = int(model.config.max_position_embeddings)
    jobs = (
        _Job(given, bits, window)
        for given in pieces
        for bits in [TokenBits(np.zeros(given.ids.size), np.zeros(given.ids.size))]
        for window in sliding_windows(given.ids.size, given.begins, context, stride)
    )
    while batch := list(islice(jobs, max(batch_tokens // context, 1))):
        _score(model, batch, watch)
        yield from (job.bits for job in batch if job.window.stop == job.given.ids.size)


@torch.inference_mode()
def _score(model: LlamaForCausalLM, batch: list[_Job], watch: Watch | None) -> None:
    """Puts the bits of each window's targets into its piece's arrays."""
    shape = len(batch), max(job.window.stop - job.window.start for job in batch) - 1
    input_ids_BC, labels_BC = np.full(shape, model.config.pad_token_id), np.full(shape, IGNORE)
    for row, ((ids, _, _), _, (start, scored, stop)) in enumerate(batch):
        input_ids_BC[row, : stop - start - 1] = ids[start : stop - 1]
        labels_BC[row, scored - start - 1 : stop - start - 1] = ids[scored:stop]
    inputs, labels = (torch.from_numpy(rows).to(model.device) for rows in (input_ids_BC, labels_BC))
    packed = np.concatenate(
        [legal.packed[legal.which[scored:stop]] for (_, _, legal), _, (_, scored, stop) in batch]
    )
    found, done = [], 0
    for logits_nV, labels_n in target_logits(model, inputs, labels):
        if watch is not None:
            watch(logits_nV, labels_n)
        of_chunk = packed[done : done + len(labels_n)]
        legal_nV = torch.from_numpy(unpacked(of_chunk, logits_nV.shape[1])).to(logits_nV.device)
        among = logits_nV.masked_fill(legal_nV.logical_not_(), -torch.inf)
        nats_n2 = torch.stack([_nats(logits_nV, labels_n), _nats(among, labels_n)], dim=1)
        found.append(nats_n2.double().cpu().numpy() / math.log(2))
        done += len(labels_n)
    counts = [job.window.stop - job.window.scored for job in batch]
    for job, bits_n2 in zip(batch, np.split(np.concatenate(found), np.cumsum(counts)[:-1]), strict=True):
        for array, bits_n in zip(job.bits, bits_n2.T, strict=True):
            array[job.window.scored : job.window.stop] = bits_n


def _nats(logits_nV: Tensor, labels_n: Tensor) -> Tensor:
    return F.cross_entropy(logits_nV, labels_n, reduction="none")


def target_logits(
    model: LlamaForCausalLM, input_ids_BC: Tensor, labels_BC: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [n, V] at the labels [n] that count, some at a time, row by row. They are made only there.

    PAD stands at the end of rows only, so that causal attention needs no mask.
    """
    inputs, head = inputs_and_head(model, input_ids_BC)
    counts_BC = labels_BC != IGNORE
    hidden_nD = model.model(**inputs, use_cache=False).last_hidden_state[counts_BC]
    labels_n = labels_BC[counts_BC]
    size = CPU_CHUNK if hidden_nD.device.type == "cpu" else GPU_CHUNK
    for hidden, labels in zip(hidden_nD.split(size), labels_n.split(size), strict=True):
        yield head(hidden).float(), labels


@dataclass(frozen=True)
class PieceBits:
    """What one performance costs.

    Attributes:
        row: What is known of it.
        seconds: From the first beat of its grid to the end of the last.
        tokens: Its ids, BOS and EOS included.
        bits: By group, among all ids; among the legal ones where the model learned nothing else.
        grammar_bits: All, each token chosen among those that the grammar allows.
    """

    row: PieceRow
    seconds: float
    tokens: int
    bits: dict[str, float]
    grammar_bits: float

    @property
    def total(self) -> float:
        """Bits in all."""
        return sum(self.bits.values())


def run(ctx: StageContext) -> Metrics:
    """Measures, and writes `pieces.csv` to the run directory.

    Raises:
        UserError: The model, the cells or a setting cannot be used, or there is nothing to measure.
    """
    set_threads(ctx.cfg, 1)
    keep_freed_memory()
    hardware = resolve_hardware(ctx.cfg)
    device = "cuda" if hardware.accelerator == "gpu" else "cpu"
    lm = PianoLM.from_pretrained(ctx.upstream["model"], device)
    context = int(lm.model.config.max_position_embeddings)
    stride = _stride(ctx.cfg["evaluate"]["stride"], context)
    store = CellStore.open(ctx.upstream["cells"])
    chosen, flat = _chosen(store, ctx, lm.tokenizer)
    if getattr(lm.model.config, IN_GRAMMAR, False):
        print(
            "evaluate: the model learned under the grammar, so all its bits are those in the grammar",
            flush=True,
        )
    measured = measure(lm, store, chosen, stride, _AUTOCAST.get(hardware.precision))
    results = list(_told(measured, len(chosen)))
    _write(ctx.run_dir / "pieces.csv", results, list(_groups(lm.tokenizer)))
    return {
        **_metrics(results),
        "flat_pieces_left_out": flat,
        "context": context,
        "least_context": context + 1 - stride,
    }


def measure(
    lm: PianoLM, store: CellStore, chosen: Iterable[int], stride: int, precision: torch.dtype | None = None
) -> Iterator[PieceBits]:
    """What some pieces of a store cost.

    Args:
        lm: The model and its tokenizer.
        store: The music.
        chosen: Which of its pieces.
        stride: See `sliding_windows`.
        precision: That matrices are multiplied in; None for that of the weights.
    """
    device, kind_of = lm.model.device.type, lm.tokenizer.vocabulary.kind_of
    groups, in_grammar = _groups(lm.tokenizer), getattr(lm.model.config, IN_GRAMMAR, False)
    waiting: deque[tuple[int, NDArray[np.int64]]] = deque()

    def tokens() -> Iterator[Given]:
        for index in chosen:
            ids = lm.tokenizer.encode_cells(
                store.cells(index), np.asarray(store.beats_sec(index)), store.bar_starts(index)
            )
            waiting.append((index, ids))
            legal = legal_ids(lm.tokenizer.grammar, ids)
            yield Given(ids, beat_positions(ids, lm.tokenizer.vocabulary), legal)

    with torch.autocast(device, precision, enabled=precision is not None):
        for bits in token_bits(lm.model, tokens(), stride, BATCH_TOKENS[device]):
            index, ids = waiting.popleft()
            by_kind = np.bincount(kind_of[ids], bits.legal if in_grammar else bits.free, len(Kind))
            beats_sec = store.beats_sec(index)
            yield PieceBits(
                row=store.pieces[index],
                seconds=float(beats_sec[-1] - beats_sec[0]),
                tokens=ids.size,
                bits={name: float(by_kind[list(kinds)].sum()) for name, kinds in groups.items()},
                grammar_bits=float(bits.legal.sum()),
            )


def _groups(tokenizer: PianoTokenizer) -> dict[str, tuple[Kind, ...]]:
    absent = {"velocity": tokenizer.codec is None, "bar": not tokenizer.bars, "age": tokenizer.held != "ages"}
    return {name: kinds for name, kinds in GROUPS.items() if not absent.get(name, False)}


def _stride(wanted: Any, context: int) -> int:
    if wanted is None:
        return max(context // 2, 1)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= context:
        raise UserError(
            f"evaluate.stride={wanted!r} found, expected a whole number of tokens from 1 to {context}, the model's "
            "context, or null for half of it"
        )
    return wanted


def _chosen(store: CellStore, ctx: StageContext, tokenizer: PianoTokenizer) -> tuple[list[int], int]:
    """Performances of the split whose notes count, and how many are left out as their velocities say nothing.

    A model with velocities cannot be charged for those of a flat piece, and without them its notes lack some bits.
    """
    of_split = performances(store.pieces, ctx.cfg)
    chosen = [index for index in of_split if tokenizer.codec is None or not store.flat(index)]
    if not chosen:
        raise UserError(
            f"evaluate.split={ctx.cfg['evaluate']['split']}: the velocities of all {len(of_split)} performances say "
            "nothing, so the notes of a model with velocities cannot be measured there; give other data, or a model "
            "of stage=base"
        )
    return chosen, len(of_split) - len(chosen)


def _told(results: Iterable[PieceBits], pieces: int) -> Iterator[PieceBits]:
    """Says some ten times how far it is."""
    bits = notes = 0.0
    for done, result in enumerate(results, 1):
        bits, notes = bits + result.total, notes + result.row.notes
        if done * 10 // pieces > (done - 1) * 10 // pieces:
            print(f"evaluate: {done} of {pieces} pieces, {bits / notes:.3f} bits per note", flush=True)
        yield result


def _metrics(results: list[PieceBits]) -> Metrics:
    notes = sum(result.row.notes for result in results)
    tokens, bits = sum(result.tokens for result in results), sum(result.total for result in results)
    by_group = {name: sum(result.bits[name] for result in results) for name in results[0].bits}
    return {
        "pieces": len(results),
        "notes": notes,
        "tokens": tokens,
        "tokens_per_note": tokens / notes,
        "bits_per_note": bits / notes,
        **{f"bits_per_note_{name}": value / notes for name, value in by_group.items()},
        "grammar_bits_per_note": sum(result.grammar_bits for result in results) / notes,
        "bits_per_second": bits / sum(result.seconds for result in results),
    }


def _write(path: Path, results: list[PieceBits], groups: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*_COLUMNS, *(f"bits_{name}" for name in groups)))
        for result in results:
            row, bits = result.row, result.total
            counts = (row.notes, round(result.seconds, 3), result.tokens)
            figures = [round(value, 3) for value in (bits, bits / row.notes, result.grammar_bits)]
            by_group = [round(value, 3) for value in result.bits.values()]
            writer.writerow((row.id, row.path, *counts, *figures, *by_group))
