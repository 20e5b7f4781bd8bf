from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pianolm.errors import UserError
from pianolm.training import hardware
from pianolm.training.hardware import (
    Hardware,
    Launcher,
    find_launcher,
    precision_said,
    require,
    resolve_hardware,
    set_threads,
    trainer_arguments,
)
from tests.tiny import composed

AUTO = {"accelerator": "auto", "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "auto"}

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
SRUN = {
    "SLURM_JOB_ID": "1",
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_CPUS_PER_TASK": "1",
}


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What was found of one processor is not that of the next, and a launcher may have started these tests."""
    for name in {**TORCHRUN, **SRUN}:
        monkeypatch.delenv(name, raising=False)
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


@pytest.mark.parametrize(("environment", "name"), [(TORCHRUN, "torchrun"), (SRUN, "srun")])
def test_presets_take_the_processes_that_were_started(
    environment: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    presets = [composed(f"hardware={preset}")["trainer"] for preset in ("torchrun", "slurm")]
    monkeypatch.setattr(hardware, "count_gpus", lambda: 0)
    assert all(resolve_hardware(preset).processes == 1 for preset in presets)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert find_launcher() == Launcher(name, 3, 4, 2)
    for preset in presets:
        found = resolve_hardware(preset)
        assert (found.devices, found.num_nodes, found.processes, found.strategy) == (2, 2, 4, "ddp")
        require(found, together=True)
    require(alone := resolve_hardware(AUTO))
    with pytest.raises(UserError, match=f"but {name} started 2 on each of 2; use hardware=torchrun or"):
        require(alone, together=True)


def test_a_batch_script_itself_and_a_step_of_one_process_are_not_started_by_srun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """sbatch sets SLURM_NTASKS and SLURM_PROCID too, so that `hardware=ddp` there starts its own processes."""
    for key, value in SRUN.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    assert find_launcher() is None
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert find_launcher() is None


def test_machines_with_different_numbers_of_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {**TORCHRUN, "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(
        UserError, match="torchrun started 3 processes, 2 of them on this machine; expected equally"
    ):
        find_launcher()
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(UserError, match="srun started 4 processes without --ntasks-per-node"):
        find_launcher()


def test_several_machines_need_a_launcher() -> None:
    with pytest.raises(UserError, match=r"num_nodes=2 found, but this process was started alone"):
        require(Hardware("cpu", 1, 2, "ddp", "32-true"))


def test_processes_share_the_cores_of_their_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(hardware, "cores", lambda: 12)
    for given in (None, 5):
        set_threads({"compute": {"threads": given}}, 4)
    for key, value in {**SRUN, "SLURM_CPUS_PER_TASK": "8"}.items():
        monkeypatch.setenv(key, value)
    set_threads({"compute": {"threads": None}}, 4)
    assert threads == [3, 5, 8]


def test_small_networks_train_in_one_process_and_all_but_the_beat_tracker_in_full_precision() -> None:
    cfg = composed("hardware=ddp", "hardware.precision=bf16-mixed")
    for stage in hardware.SMALL:
        arguments = trainer_arguments(cfg, stage)
        assert (arguments["devices"], arguments["strategy"]) == (1, "auto")
        assert arguments["precision"] == ("bf16-mixed" if stage == "beats" else "32-true")
    assert trainer_arguments(cfg, "base")["strategy"] == "ddp"
