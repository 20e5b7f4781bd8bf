"""The order in which a training run takes its batches, so that a resumed run continues where the last one stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, SequentialSampler

from pianolm.child_process import start_worker


class StepSampler(SequentialSampler):
    """Yields the batch numbers first, …, stop − 1 of a dataset whose batch k depends on k alone.

    Its length is `stop`, not the count of what it yields: Lightning restores its batch counter when it resumes and
    compares it with the length of the loader. It is a `SequentialSampler` so that `trainer.overfit_batches` keeps it.
    """

    def __init__(self, first: int, stop: int) -> None:
        super().__init__(range(stop))
        self.first, self.stop = first, stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.stop))

    def __len__(self) -> int:
        return self.stop


def batch_loader(
    batches: Dataset[Any], steps: StepSampler | None, workers: int, **options: Any
) -> DataLoader[Any]:
    """A loader of a dataset whose items are batches: those of `steps`, or all; `options` are the `DataLoader`'s own."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        worker_init_fn=start_worker,
        **options,
    )
