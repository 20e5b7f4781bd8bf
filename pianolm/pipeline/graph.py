"""How the stages hang together: what each needs, what of the configuration determines it, and how to build it.

A `Node` is one artifact to be: its stage, the configuration it is built with, its upstream nodes by role and its
fingerprint. Planning makes the nodes, building walks them.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from pianolm.artifacts import ArtifactStore, file_fingerprint, fingerprint, read_record, write_record
from pianolm.errors import UserError
from pianolm.stage import Metrics, StageContext

Config = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A stage: how its upstream artifacts are found and which part of the configuration determines it."""

    settings: Callable[[Config], Mapping[str, Any]]
    publishes: bool = True
    trains: bool = False


def _data_settings(cfg: Config) -> Mapping[str, Any]:
    from pianolm.data.reading import manifest

    # Where folders lie determines nothing; the manifest says what is in them.
    data = {k: v for k, v in cfg["data"].items() if k not in ("root", "parts")}
    return {"data": data, "manifest": manifest(cfg)}


def _tokenizer_settings(cfg: Config) -> Mapping[str, Any]:
    from pianolm.tokenizer.config import TokenizerSettings

    TokenizerSettings.from_dict(
        cfg["tokenizer"]
    )  # settings that do not fit are refused before anything is built
    return {"tokenizer": cfg["tokenizer"]}


def _precision(cfg: Config) -> str:
    from pianolm.training.trainer import resolve_hardware

    return resolve_hardware(cfg).precision


def _lm_settings(name: str) -> Callable[[Config], Mapping[str, Any]]:
    def settings(cfg: Config) -> Mapping[str, Any]:
        return {
            "model": cfg["model"],
            "trainer": {**cfg["trainer"], **cfg[name]},
            "seed": cfg["seed"],
            "precision": _precision(cfg),
        }

    return settings


STAGES = {
    "prepare": Stage(_data_settings),
    "codebook": Stage(
        lambda cfg: {"codebook": cfg["codebook"], "vocabulary": cfg["tokenizer"]["vocabulary"]}
    ),
    "velvq": Stage(lambda cfg: {"velvq": cfg["velvq"]}, trains=True),
    "tokenize": Stage(_tokenizer_settings),
    "base": Stage(_lm_settings("base"), trains=True),
    "finetune": Stage(_lm_settings("finetune"), trains=True),
    "evaluate": Stage(lambda cfg: {"evaluate": cfg["evaluate"]}, publishes=False),
    "generate": Stage(lambda cfg: {"generate": cfg["generate"], "seed": cfg["seed"]}, publishes=False),
    "plot": Stage(lambda cfg: {"plot": cfg["plot"]}, publishes=False),
}


@dataclass(frozen=True)
class Node:
    """One artifact to be, or one that was given.

    Attributes:
        stage: Its stage; empty for a given artifact.
        cfg: The configuration it is built with.
        upstream: Nodes it needs, by role.
        fingerprint: Of everything that determines it.
        given: The path of a given artifact.
    """

    stage: str
    cfg: Config
    upstream: dict[str, Node]
    fingerprint: str
    given: Path | None = None


class Planner:
    """Makes the nodes for a configuration; equal needs share one node."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self._nodes: dict[str, Node] = {}

    def node(self, stage: str, mode: str | None = None) -> Node:
        """The node of a stage; `mode` sets the tokenizer's mode for it and what it needs."""
        key = f"{stage}:{mode}"
        if key not in self._nodes:
            cfg = (
                self.cfg
                if mode is None
                else {**self.cfg, "tokenizer": {**self.cfg["tokenizer"], "mode": mode}}
            )
            if stage != self.cfg["stage"]["name"] and self.cfg["resume"] not in ("auto", "never"):
                cfg = {**cfg, "resume": "auto"}  # a path is for the stage asked for
            upstream = self._upstream(stage, cfg)
            self._nodes[key] = Node(stage, cfg, upstream, _node_fingerprint(stage, cfg, upstream))
        return self._nodes[key]

    def _upstream(self, stage: str, cfg: Config) -> dict[str, Node]:
        if stage in ("prepare", "plot"):
            return {}
        if stage in ("codebook", "velvq"):
            return {"cells": self._need("cells", "prepare")}
        if stage == "tokenize":
            return {
                "cells": self._need("cells", "prepare"),
                **self._tokenizer_parts(cfg["tokenizer"]["mode"]),
            }
        if stage == "base":
            return {"tokens": self.node("tokenize", "base")}
        if stage == "finetune":
            self._refuse_base_mode()
            need_base = not self.cfg["finetune"]["from_scratch"]
            base = {"base": self._need("base", "base")} if need_base else {}
            return {"tokens": self.node("tokenize", "velocity"), **base}
        if stage == "evaluate":
            from pianolm.evaluation.measure import find_measure

            return {role: self._role(role, cfg) for role in find_measure(cfg).needs}
        if stage == "generate":
            from pianolm.generation.prompts import read_prompts
            from pianolm.stages.generate import needs

            read_prompts(cfg)  # a bad one is refused before anything is trained for it
            return {role: self._role(role, cfg) for role in needs(cfg)}
        return {"model": self._role("model", cfg)}

    def _role(self, role: str, cfg: Config) -> Node:
        """What was made before in a role that a stage at the end of the chain reads."""
        model = "base" if cfg["tokenizer"]["mode"] == "base" else "finetune"
        stages = {"cells": "prepare", "tokenizer": "tokenize", "model": model}
        return self._need(role, stages.get(role, role))

    def _tokenizer_parts(self, mode: str) -> dict[str, Node]:
        if self.cfg["upstream"].get("tokenizer"):
            return {"tokenizer": self._given("tokenizer")}
        codebook = {"codebook": self._need("codebook", "codebook")}
        return codebook if mode == "base" else {**codebook, "velvq": self._need("velvq", "velvq")}

    def _refuse_base_mode(self) -> None:
        if self.cfg["tokenizer"]["mode"] == "base":
            raise UserError(
                "stage=finetune learns velocities and tokenizer=base has none; use tokenizer=velocity or stage=base"
            )

    def _need(self, role: str, stage: str) -> Node:
        return self._given(role) if self.cfg["upstream"].get(role) else self.node(stage)

    def _given(self, role: str) -> Node:
        path = Path(str(self.cfg["upstream"][role])).expanduser().resolve()
        if not path.exists():
            raise UserError(
                f"upstream.{role}={path}: no such file or directory; give a published artifact or a file"
            )
        if role == "velvq":
            from pianolm.tokenizer.velocity import check_codec_path

            check_codec_path(path)
        record = read_record(path) if path.is_dir() else None
        name = record["fingerprint"] if record else file_fingerprint(path)
        return Node("", self.cfg, {}, name, given=path)


def _node_fingerprint(stage: str, cfg: Config, upstream: Mapping[str, Node]) -> str:
    return fingerprint(
        {
            "stage": stage,
            "version": _module(stage).VERSION,
            "settings": STAGES[stage].settings(cfg),
            "upstream": {role: node.fingerprint for role, node in upstream.items()},
            **_extended(stage, cfg),
        }
    )


def _extended(stage: str, cfg: Config) -> dict[str, str]:
    """What a run that `resume=PATH` extends has come from."""
    if not STAGES[stage].trains or cfg["resume"] in ("auto", "never"):
        return {}
    from pianolm.training.trainer import given_checkpoint

    checkpoint = given_checkpoint(cfg)
    return {} if checkpoint is None else {"extends": file_fingerprint(checkpoint)}


def _module(stage: str) -> ModuleType:
    return importlib.import_module(f"pianolm.stages.{stage}")


@dataclass
class Builder:
    """Walks a plan: reuses what is published, builds what is missing, says both in a line each.

    Attributes:
        cfg: The run's configuration.
        run_dir: Where logs and pictures of this run go.
        say: Prints a line.
        extra: Handed to the stages: the sweep's name.
    """

    cfg: Config
    run_dir: Path
    say: Callable[[str], None] = print
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = ArtifactStore(Path(self.cfg["paths"]["artifacts"]).absolute())
        self.work = Path(self.cfg["paths"]["work"]).absolute()

    def describe(self, node: Node) -> list[str]:
        """What building a node would do, upstream first, a line each."""
        lines: dict[str, None] = {}
        for role, needed in node.upstream.items():
            if needed.given:
                lines[f"given   {role:<10} {needed.given}"] = None
            else:
                lines |= dict.fromkeys(self.describe(needed))
        if not STAGES[node.stage].publishes:
            lines[f"run     {node.stage}"] = None
            return list(lines)
        found = self.store.find(node.stage, node.fingerprint)
        if found:
            return [f"reuse   {node.stage:<10} {found}"]
        lines[f"build   {node.stage:<10} {self.store.path(node.stage, node.fingerprint)}"] = None
        return list(lines)

    def build(self, node: Node, force: bool = False) -> tuple[Path, Metrics]:
        """The artifact's directory and metrics; builds what it needs first."""
        if node.given:
            return node.given, {}
        if not STAGES[node.stage].publishes:
            return self.run_dir, self._run(node, self.run_dir)
        found = None if force else self.store.find(node.stage, node.fingerprint)
        if found is None:
            with self.store.lock(node.stage, node.fingerprint):
                found = (
                    None if force else self.store.find(node.stage, node.fingerprint)
                )  # another job was faster
                if found is None:
                    return self._publish(node)
        self.say(f"{node.stage}: reuses {found}")
        record = read_record(found)
        return found, record["metrics"] if record else {}

    def _publish(self, node: Node) -> tuple[Path, Metrics]:
        target = self.store.path(node.stage, node.fingerprint)
        with self.store.publish(node.stage, node.fingerprint) as out:
            metrics = self._run(node, out)
            if STAGES[node.stage].trains:
                self._keep_for_extension(node, out)
            (out / "config.yaml").write_text(_to_yaml(node.cfg))
            write_record(
                out,
                {
                    "stage": node.stage,
                    "fingerprint": node.fingerprint,
                    "upstream": {role: needed.fingerprint for role, needed in node.upstream.items()},
                    "metrics": metrics,
                },
            )
        shutil.rmtree(self.work / node.stage / node.fingerprint, ignore_errors=True)
        self.say(f"{node.stage}: built {target} in {metrics['seconds']} s")
        return target, metrics

    def _keep_for_extension(self, node: Node, out: Path) -> None:
        """Puts what `resume=PATH` needs into the artifact; a run killed now still finds it in the work directory."""
        from pianolm.training.trainer import LAST, WANDB_ID

        for name in (LAST, WANDB_ID):
            if (kept := self.work / node.stage / node.fingerprint / name).is_file():
                try:
                    os.link(kept, out / name)
                except OSError:  # on another file system, or one without links
                    shutil.copyfile(kept, out / name)

    def _run(self, node: Node, out: Path) -> Metrics:
        upstream = {role: self.build(needed)[0] for role, needed in node.upstream.items()}
        self.say(f"{node.stage}: runs")
        context = StageContext(
            cfg=node.cfg,
            upstream=upstream,
            out=out,
            work=self.work / node.stage / node.fingerprint,
            run_dir=self.run_dir,
            name=node.stage,
            fingerprint=node.fingerprint,
            extra=self.extra,
        )
        start = time.perf_counter()
        metrics = run_stage(context)
        return {**metrics, "seconds": round(time.perf_counter() - start, 3)}


def run_stage(context: StageContext) -> Metrics:
    """Runs a stage here, with the processes that its hardware asks for when it trains."""
    from pianolm.pipeline.launch import other_ranks

    module = _module(context.name)
    if not STAGES[context.name].trains:
        metrics: Metrics = module.run(context)
        return metrics
    with other_ranks(context):
        trained: Metrics = module.run(context)
    return trained


def _to_yaml(cfg: Config) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(json.loads(json.dumps(cfg))))
