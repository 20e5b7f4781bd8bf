"""Fewer lines of Lightning on the terminal: each line once, and no hints that do not apply here."""

from __future__ import annotations

import logging
import warnings

import lightning  # noqa: F401  # its handlers are there once it is imported

_EXPECTED_WARNINGS = (
    ".*isinstance.treespec, LeafSpec.*",  # lightning 2.6 with torch 2.13: an interface that torch renames
    ".*does not have many workers.*",  # a batch is a slice of a mapped file
    ".*Checkpoint directory .* exists and is not empty.*",  # the work directory of a resumed run
    ".*The dirpath has changed from .*",  # a run that is extended works in a directory of its own
    ".*resuming from a checkpoint that ended before the epoch ended.*",  # batch k depends on k alone
    ".*is smaller than the logging interval.*",  # a run with limited batches
)
_CHATTER = (
    *("GPU available", "TPU available", "HPU available", "💡 Tip", "`Trainer.fit` stopped"),
    *("Initializing distributed", "-" * 100),  # `fit` says how many processes train
)


def quieten() -> None:
    """Silences Lightning's hints that do not apply here, and its own handler where Hydra's prints the same line."""
    if logging.getLogger().handlers:
        for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).handlers.clear()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.distributed"):
        logging.getLogger(name).addFilter(_is_ours)
    for expected in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", expected)


def _is_ours(record: logging.LogRecord) -> bool:
    """Keeps lines of progress and drops Lightning's tips and device tables."""
    return not record.getMessage().startswith(_CHATTER)
