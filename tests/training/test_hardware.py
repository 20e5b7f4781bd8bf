from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pianolm.training import hardware
from pianolm.training.hardware import precision_said, resolve_hardware

AUTO = {"accelerator": "auto", "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "auto"}


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What was found of one processor is not that of the next."""
    hardware.bf16_instructions.cache_clear()
    yield
    hardware.bf16_instructions.cache_clear()


@pytest.mark.parametrize(
    ("flags", "precision", "said"),
    [
        ("avx2 avx512f", "32-true", "as this processor has neither AMX nor AVX-512 BF16"),
        ("avx512f avx512_bf16", "bf16-mixed", "as this processor has avx512_bf16"),
        ("avx512_bf16 amx_tile amx_bf16", "bf16-mixed", "as this processor has amx_bf16"),
        (None, "32-true", "hardware.precision=bf16-mixed for the other"),
    ],
)
def test_bf16_is_taken_on_processors_that_compute_it(
    flags: str | None, precision: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other systems than Linux have no such file."""
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\nbogomips\t: 1\n")
    monkeypatch.setattr(hardware, "_PROCESSOR", tmp_path / "cpuinfo")
    monkeypatch.setattr(hardware, "count_gpus", lambda: 0)
    found = resolve_hardware(AUTO)
    assert (found.accelerator, found.precision) == ("cpu", precision)
    assert said in precision_said(found)
    assert resolve_hardware({**AUTO, "precision": "32-true"}).precision == "32-true"


def test_a_gpu_computes_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "count_gpus", lambda: 1)
    found = resolve_hardware(AUTO)
    assert (found.accelerator, found.precision) == ("gpu", "bf16-mixed")
    assert precision_said(found) == "precision bf16-mixed, on a GPU; hardware.precision=32-true for the other"
