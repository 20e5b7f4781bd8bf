"""How a global batch is divided among processes and into micro-batches.

Shapes: R rows of a global batch, B rows of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pianolm.errors import UserError


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is divided.

    Attributes:
        global_rows: R of the global batch.
        rows: B of a micro-batch on one process.
        accumulate: Micro-batches of an optimizer step on each process.
        processes: Number of processes.
    """

    global_rows: int
    rows: int
    accumulate: int
    processes: int

    def part(self, micro: int, rank: int) -> slice:
        """Rows of the global batch in micro-batch number `micro` of the step on process `rank`."""
        first = (micro * self.processes + rank) * self.rows
        return slice(first, first + self.rows)


def stage_batch(cfg: Mapping[str, Any], stage: str, processes: int) -> BatchPlan:
    """How a batch of `base` or `finetune` is divided.

    Raises:
        UserError: It cannot be divided evenly.
    """
    options = cfg[stage]
    return plan_batch(options["loader"], processes, options["trainer"]["accumulate_grad_batches"])


def plan_batch(loader: Mapping[str, Any], processes: int, accumulate: int | None = None) -> BatchPlan:
    """Divides `batch_tokens` among processes and into micro-batches.

    Args:
        loader: `batch_tokens`, `context` and `micro_batch_tokens` (largest micro-batch of a process; None: no limit).
        processes: Number of processes.
        accumulate: Micro-batches of an optimizer step; None: as few as `micro_batch_tokens` allows.

    Raises:
        UserError: The rows cannot be divided evenly, or both `accumulate` and `micro_batch_tokens` are given.
    """
    context, batch, micro = (
        int(loader[key] or 0) for key in ("context", "batch_tokens", "micro_batch_tokens")
    )
    rows = max(1, batch // context)
    if rows % (processes * (accumulate or 1)):
        step = context * processes * (accumulate or 1)
        below, above = batch // step * step, (batch // step + 1) * step
        shares = f"{processes} processes" + (f" with {accumulate} micro-batches each" if accumulate else "")
        raise UserError(
            f"loader.batch_tokens={batch} makes {rows} rows of loader.context={context}, which {shares} cannot share "
            f"evenly; expected a multiple of {step}, such as {f'{below} or {above}' if below else above}"
        )
    share = rows // processes
    if accumulate:
        if micro:
            raise UserError(
                f"trainer.accumulate_grad_batches={accumulate} and loader.micro_batch_tokens={micro} found, expected "
                "at most one of them; set the other to null"
            )
        return BatchPlan(rows, share // accumulate, accumulate, processes)
    largest = min(max(1, micro // context), share) if micro else share
    micro_rows = next(count for count in range(largest, 0, -1) if share % count == 0)
    return BatchPlan(rows, micro_rows, share // micro_rows, processes)
