from __future__ import annotations

from pianolm.data.step_sampler import StepSampler


def test_a_resumed_sampler_starts_later_and_keeps_its_length() -> None:
    sampler = StepSampler(3, 6)
    assert list(sampler) == [3, 4, 5]
    assert len(sampler) == 6
