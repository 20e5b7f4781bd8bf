"""The whole configuration, and its registration with Hydra."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from pianolm.config.beats import BeatsConfig
from pianolm.config.data import DATA, DataConfig
from pianolm.config.dynamics import DynamicsModelConfig
from pianolm.config.evaluate import EVALUATE, ArtifactsConfig, EvaluateConfig, PlotConfig
from pianolm.config.export import ExportConfig
from pianolm.config.generate import GenerateConfig
from pianolm.config.hardware import ComputeConfig, HardwareConfig, PathsConfig
from pianolm.config.model import ModelConfig
from pianolm.config.option import modules, option
from pianolm.config.sweeps import OptunaSweeperConfig, RayLauncherConfig
from pianolm.config.tokenizer import CodebookConfig, TokenizerConfig
from pianolm.config.training import (
    BaseConfig,
    FinetuneConfig,
    LoaderConfig,
    LossConfig,
    OptimizerConfig,
    TrainerConfig,
)
from pianolm.config.velvq import FrameConfig, SegmentConfig, VelVQConfig

SCHEMA = "schema"
"""Prefix of the names under which the dataclasses are stored beside the YAML files."""

VARIANTS: dict[str, tuple[str, dict[str, type]]] = {
    "data": ("source", dict(DATA)),
    "velvq": ("form", {"segment": SegmentConfig, "frame": FrameConfig}),
    "evaluate": ("name", dict(EVALUATE)),
}
"""Groups whose options depend on a choice: the option that names the choice, and the dataclass of each."""


@dataclass
class StageConfig:
    """The stage that is run."""

    name: str = option(MISSING, "Name of the stage.", choices=modules("stages"))


@dataclass
class UpstreamConfig:
    """Takes something made before instead of building it: a directory, a .safetensors, .npz or .ckpt file."""

    cells: str | None = option(None, "Artifact of stage prepare.")
    codebook: str | None = option(None, "Artifact of stage codebook, or an .npz file.")
    velvq: str | None = option(None, "Artifact of stage velvq.")
    tokenizer: str | None = option(
        None, "Directory of a saved tokenizer, or an artifact or a model on the hub with one."
    )
    base: str | None = option(
        None,
        "Artifact of stage base or finetune, a file of weights, a bundled model (pop), or user/name on the Hugging "
        "Face hub, that finetune starts from.",
    )
    model: str | None = option(
        None,
        "Artifact of stage base, finetune or dynamics, or a file of weights, to play, measure or export; pop, "
        "dynamics: bundled models; user/name: one on the Hugging Face hub; latest: the last one published.",
    )


@dataclass
class Config:
    """Everything a run is made of."""

    stage: StageConfig = field(default_factory=StageConfig)
    data: DataConfig = field(default_factory=DataConfig)
    codebook: CodebookConfig = field(default_factory=CodebookConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    velvq: VelVQConfig = field(default_factory=VelVQConfig)
    beats: BeatsConfig = field(default_factory=BeatsConfig)
    dynamics: DynamicsModelConfig = field(default_factory=DynamicsModelConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    base: BaseConfig = field(default_factory=BaseConfig)  # type: ignore[valid-type]  # made from other dataclasses
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)  # type: ignore[valid-type]  # likewise
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    plot: PlotConfig = field(default_factory=PlotConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    artifacts: ArtifactsConfig = field(default_factory=ArtifactsConfig)
    callbacks: dict[str, Any] = option({}, "Lightning callbacks, as entries with a `_target_`.")
    logger: dict[str, Any] = option({}, "Lightning loggers, as entries with a `_target_`.")
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    prompt: Any = option(
        None, "MIDI file that stage=generate continues; several: [a.mid,b.mid] or 'songs/*.mid'."
    )
    seed: int = option(0, "Random seed of weights, data order and sampling.", at_least=0)
    resume: str = option(
        "auto",
        "auto continues unfinished training of the same fingerprint; never starts over; an artifact directory or "
        ".ckpt file extends a finished run to a larger max_steps.",
    )
    plan: bool = option(False, "Prints what would be built and reused, and stops there.")
    force: bool = option(False, "Builds the requested stage again, even if its artifact exists.")
    verify: bool = option(
        False, "Compares the contents of artifacts with their record before they are reused."
    )


def register() -> None:
    """Stores the dataclasses where Hydra finds them: `schema` for the root, `<group>/schema_<choice>` for variants."""
    store = ConfigStore.instance()
    store.store(name=SCHEMA, node=Config)
    for group, (_, variants) in VARIANTS.items():
        for choice, cls in variants.items():
            store.store(group=group, name=f"{SCHEMA}_{choice}", node=cls)
    store.store(group="hydra/launcher", name="ray", node=RayLauncherConfig, provider="pianolm")
    store.store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConfig, provider="pianolm")


def group_names() -> list[str]:
    """Names of the groups of options at the root."""
    return [f.name for f in dataclasses.fields(Config) if f.name not in _ROOT_OPTIONS]


_ROOT_OPTIONS = ("prompt", "seed", "resume", "plan", "force", "verify")
