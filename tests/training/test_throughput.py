"""Throughput of a run, on a clock that the tests set."""

from __future__ import annotations

import pytest
import torch

from pianolm.training import throughput
from pianolm.training.throughput import Stopwatch, Throughput, peak_memory_mb


class Clock:
    """Stands in for the module `time`."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def test_a_stopwatch_sums_its_intervals(clock: Clock) -> None:
    stopwatch = Stopwatch()
    for start, stop in [(0.0, 2.0), (5.0, 6.0)]:
        clock.now = start
        stopwatch.start()
        clock.now = stop
        stopwatch.stop()
    clock.now = 100.0
    stopwatch.stop()
    assert stopwatch.lap() == stopwatch.seconds == 3.0


def test_the_first_step_and_validation_do_not_count(clock: Clock) -> None:
    rate = Throughput()
    rate.resume()  # of a validation before training
    clock.now = 50.0
    rate.step(1000)
    assert rate.per_second == rate.since_last_call() == 0
    clock.now = 52.0
    rate.step(10)
    assert rate.per_second == rate.since_last_call() == 5.0
    rate.pause()
    clock.now = 90.0
    rate.resume()
    clock.now = 91.0
    rate.step(20)
    assert rate.since_last_call() == 20.0
    assert rate.per_second == 10.0
    assert rate.since_last_call() == 0


def test_peak_memory_of_a_cpu_is_that_of_the_process() -> None:
    assert 50 < peak_memory_mb(torch.device("cpu")) < 1e6
