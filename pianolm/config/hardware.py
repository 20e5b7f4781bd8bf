"""Options of where and on what a run works. None of them is part of a fingerprint, except the precision."""

from __future__ import annotations

from dataclasses import dataclass

from pianolm.config.option import option

PRECISIONS = ("auto", "32-true", "bf16-mixed", "bf16-true", "16-mixed")


@dataclass
class HardwareConfig:
    """What training runs on; `trainer` takes its arguments of the same names from here."""

    accelerator: str = option(
        "auto", "auto: a GPU where there is one, else the CPU.", choices=("auto", "cpu", "gpu")
    )
    devices: int | str = option(
        1,
        "Number of processes on each machine; auto: those that torchrun or srun started there, else one for each GPU.",
    )
    num_nodes: int | str = option(
        "auto", "Number of machines; auto: those on which torchrun or srun started processes, else 1."
    )
    strategy: str = option(
        "auto",
        "auto: ddp where there are several processes; ddp: each holds the whole model; fsdp: each holds a part of "
        "every weight and of the optimizer's state (FSDP2); or another name of Lightning's.",
    )
    precision: str = option(
        "auto",
        "auto: bf16-mixed on a GPU and, in base and finetune, on a CPU with AMX or AVX-512 BF16; else 32-true.",
        choices=PRECISIONS,
    )
    activation_checkpointing: bool = option(
        False,
        "Language models keep only the inputs of each layer and compute the rest again for the gradient: less memory, "
        "more time, the same result.",
    )


@dataclass
class ComputeConfig:
    """Processes and threads."""

    threads: int | None = option(
        None, "Threads of torch in each process; null: the cores are shared among the processes.", at_least=1
    )
    workers: int | None = option(None, "Processes that read MIDI files; null: one for each core.", at_least=1)
    loader_workers: int = option(
        0, "Processes that load batches; 0: the training process itself.", at_least=0
    )


@dataclass
class PathsConfig:
    """Directories, relative to the one in which pianolm is started."""

    artifacts: str = option("artifacts", "Directory of published artifacts.")
    work: str = option(
        "${paths.artifacts}/.work", "Directory of unfinished stages and of remembered hashes of files."
    )
    outputs: str = option("outputs", "Directory in which each run gets one of its own.")
