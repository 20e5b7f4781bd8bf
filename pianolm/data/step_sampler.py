"""The order in which a training run takes its batches, so that a resumed run continues where the last one stopped."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import SequentialSampler


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
