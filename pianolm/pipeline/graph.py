"""From a configuration to artifacts: a plan of nodes, and the builder that walks it.

A `Node` is one artifact to be built or reused: its stage, the configuration it is built with, its upstream nodes by
role, and its fingerprint.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pianolm.artifacts import (
    ArtifactStore,
    file_fingerprint,
    fingerprint,
    licences_of,
    problem_of,
    read_record,
    write_record,
)
from pianolm.config.neutral import is_limited, without_limits
from pianolm.data.kept_results import kept_items
from pianolm.errors import UserError
from pianolm.file_errors import unwritable_files_told
from pianolm.pipeline.running import run_stage
from pianolm.stage import Metrics, Need, Stage, StageContext
from pianolm.stages import find_stage
from pianolm.training.hardware import SMALL, require, resolve_hardware, trainer_arguments
from pianolm.training.resume import BEFORE_DECAY, LAST, WANDB_ID, given_checkpoint
from pianolm.training.tracking import log_result, tracked

Config = dict[str, Any]

LIMITED = "limited"
"""Folder of a run directory for results of runs with limited batches, which no other run reuses."""


@dataclass(frozen=True)
class Node:
    """One artifact to be built or reused, or one that was given.

    Attributes:
        stage: Its stage; empty for a given artifact.
        cfg: The configuration it is built with.
        upstream: Nodes it needs, by role.
        fingerprint: Hash of everything that determines it.
        given: The path of a given artifact.
        limited: Whether it, or something it needs, is trained with limited batches.
        settings: The part of the configuration that determines it.
    """

    stage: str
    cfg: Config
    upstream: dict[str, Node]
    fingerprint: str
    given: Path | None = None
    limited: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def definition(self) -> Stage:
        """The stage's definition."""
        return find_stage(self.stage)


class Planner:
    """Makes the nodes for a configuration; equal needs share one node."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self._nodes: dict[str, Node] = {}
        self._usable: set[str] = set()
        self._data_settings: Mapping[str, Any] | None = None
        self._store = ArtifactStore(Path(cfg["paths"]["artifacts"]).absolute(), bool(cfg["verify"]))

    def plan(self) -> Node:
        """The node of the stage that the configuration asks for.

        Raises:
            UserError: An upstream artifact is given that no stage of the plan uses, or one cannot be used.
        """
        stage = self.cfg["stage"]["name"]
        node = self.node(stage, "base" if stage == "base" else None)
        for role, path in self.cfg["upstream"].items():
            if path is not None and role not in self._usable:
                usable = ", ".join(f"upstream.{name}" for name in sorted(self._usable)) or "none"
                raise UserError(
                    f"upstream.{role}={path}: stage={stage} does not use it here; it uses {usable}"
                )
        return node

    def node(self, stage: str, mode: str | None = None) -> Node:
        """The node of a stage; `mode` replaces the tokenizer's mode for it and what it needs."""
        cfg = self.cfg
        if stage != cfg["stage"]["name"] and cfg["resume"] not in ("auto", "never"):
            cfg = {**cfg, "resume": "auto"}  # a path is for the stage asked for
        if mode is not None:
            cfg = {**cfg, "tokenizer": {**cfg["tokenizer"], "mode": mode}}
        return self._node(stage, cfg)

    def _node(self, stage: str, cfg: Config) -> Node:
        key = f"{stage}:{cfg['tokenizer']['mode']}:{is_limited(cfg['trainer'])}"
        if key not in self._nodes:
            self._nodes[key] = self._full_or_limited(stage, cfg)
        return self._nodes[key]

    def _full_or_limited(self, stage: str, cfg: Config) -> Node:
        """Upstream of a run with limited batches, a published artifact of full training is taken where there is one."""
        if stage != cfg["stage"]["name"] and find_stage(stage).trains and is_limited(cfg["trainer"]):
            full = self._make(stage, _without_limits(cfg))
            if self._store.find(stage, full.fingerprint):
                return full
        return self._make(stage, cfg)

    def _make(self, stage: str, cfg: Config) -> Node:
        definition = find_stage(stage)
        if definition.check is not None:
            definition.check(cfg)
        needs = definition.needs(cfg)
        recorded = self._recorded_upstream(stage, cfg)
        upstream = {role: recorded.get(role) or self._need(need, cfg) for role, need in needs.items()}
        limited = definition.trains and is_limited(trainer_arguments(cfg, stage))
        limited = limited or any(node.limited for node in upstream.values())
        settings = self._settings(definition, cfg)
        name = _node_fingerprint(stage, definition, settings, upstream, cfg)
        return Node(stage, cfg, upstream, name, limited=limited, settings=settings)

    def _settings(self, definition: Stage, cfg: Config) -> Mapping[str, Any]:
        """The settings of a stage; those of the stage that reads data are found once: they take a look at each file."""
        if definition.licences is None:
            return definition.settings(cfg)
        if self._data_settings is None:
            self._data_settings = definition.settings(cfg)
        return self._data_settings

    def _recorded_upstream(self, stage: str, cfg: Config) -> dict[str, Node]:
        """The upstream artifacts of the run that `resume=PATH` extends, by role, as far as they still exist.

        A larger number of steps changes what base would be trained for; the extended run keeps the base it had.
        """
        if not find_stage(stage).trains or (checkpoint := given_checkpoint(cfg)) is None:
            return {}
        record = read_record(checkpoint.parent) or {}
        nodes = {}
        for role, name in record.get("upstream", {}).items():
            need = find_stage(stage).needs(cfg).get(role)
            path = self._store.find(need.stage, name) if need is not None and need.stage else None
            if path is not None and not (need and need.given and cfg["upstream"].get(need.given)):
                nodes[role] = Node("", cfg, {}, name, given=path)
        return nodes

    def _need(self, need: Need, cfg: Config) -> Node:
        if need.given is not None:
            self._usable.add(need.given)
        if need.given is not None and cfg["upstream"].get(need.given):
            return self._given(need.given)
        if need.mode is not None:
            cfg = {**cfg, "tokenizer": {**cfg["tokenizer"], "mode": need.mode}}
        if cfg["resume"] not in ("auto", "never"):
            cfg = {**cfg, "resume": "auto"}
        return self._node(need.stage, cfg)

    def _given(self, role: str) -> Node:
        path = Path(str(self.cfg["upstream"][role])).expanduser().resolve()
        if not path.exists():
            raise UserError(
                f"upstream.{role}={path}: no such file or directory; give a published artifact or a file"
            )
        record = read_record(path) if path.is_dir() else None
        if record is not None and (problem := problem_of(path, self._store.verify)) is not None:
            raise UserError(f"upstream.{role}={path}: {problem}; give an artifact as it was published")
        name = record["fingerprint"] if record else file_fingerprint(path)
        return Node("", self.cfg, {}, name, given=path)


def _without_limits(cfg: Config) -> Config:
    own = {
        name: {**cfg[name], "trainer": without_limits(cfg[name]["trainer"])} for name in ("base", "finetune")
    }
    return {**cfg, "trainer": without_limits(cfg["trainer"]), **own}


def _node_fingerprint(
    stage: str, definition: Stage, settings: Mapping[str, Any], upstream: Mapping[str, Node], cfg: Config
) -> str:
    return fingerprint(
        {
            "stage": stage,
            "version": definition.version,
            "settings": settings,
            "upstream": {role: node.fingerprint for role, node in upstream.items()},
            **_extended(definition, cfg),
        }
    )


def _extended(definition: Stage, cfg: Config) -> dict[str, str]:
    """The checkpoint that `resume=PATH` extends is part of the fingerprint."""
    checkpoint = given_checkpoint(cfg) if definition.trains else None
    return {} if checkpoint is None else {"extends": file_fingerprint(checkpoint)}


class Builder:
    """Walks a plan: reuses what is published, builds what is missing, says both in a line each.

    Args:
        cfg: The run's configuration.
        run_dir: Directory for logs and pictures of this run.
        say: Prints a line.
        sweep: Name that the jobs of a sweep share, None outside a sweep.
    """

    def __init__(
        self, cfg: Config, run_dir: Path, say: Callable[[str], None] = print, sweep: str | None = None
    ) -> None:
        self.run_dir, self.say, self.sweep = run_dir, say, sweep
        self._mentioned: set[Path] = set()  # artifacts that a line has said to be built or reused
        self.store = ArtifactStore(Path(cfg["paths"]["artifacts"]).absolute(), bool(cfg["verify"]))
        self.work = Path(cfg["paths"]["work"]).absolute()

    def _place(self, node: Node) -> tuple[ArtifactStore, Path]:
        """Where a node's artifact and its unfinished training lie."""
        if node.limited:
            root = self.run_dir.absolute() / LIMITED
            return ArtifactStore(root), root / ".work" / node.stage / node.fingerprint
        return self.store, self.work / node.stage / node.fingerprint

    def describe(self, node: Node) -> list[str]:
        """What building a node would do, upstream first, a line each."""
        lines: dict[str, None] = {}
        for role, needed in node.upstream.items():
            if needed.given:
                lines[f"given   {role:<10} {needed.given}"] = None
            else:
                lines |= dict.fromkeys(self.describe(needed))
        if not node.definition.publishes:
            describe = node.definition.describe
            lines |= dict.fromkeys(describe(node.cfg) if describe else [f"run     {node.stage}"])
            return list(lines)
        store, _ = self._place(node)
        found = store.find(node.stage, node.fingerprint)
        mode = node.settings.get("tokenizer", {}).get("mode")
        note = f"  (tokenizer.mode={mode})" if mode else ""  # a plan may hold the tokens of both modes
        if found:
            return [f"reuse   {node.stage:<10} {found}{note}"]
        verb = "try" if node.limited else "build"
        lines[f"{verb:<7} {node.stage:<10} {store.path(node.stage, node.fingerprint)}{note}"] = None
        return list(lines)

    def require_hardware(self, node: Node) -> None:
        """Checks before anything is built that each training of the plan can run with its hardware on this machine.

        Raises:
            UserError: GPUs or processes are asked for that it does not have, or a batch that they cannot share.
        """
        store, _ = self._place(node)
        if node.given or (node.definition.publishes and store.find(node.stage, node.fingerprint)):
            return
        if node.definition.trains:
            hardware = resolve_hardware(trainer_arguments(node.cfg, node.stage))
            require(hardware, together=node.stage not in SMALL)
            if (check := node.definition.check_processes) is not None:
                check(node.cfg, hardware.processes)
        for needed in node.upstream.values():
            self.require_hardware(needed)

    def build(self, node: Node, force: bool = False) -> tuple[Path, Metrics]:
        """The artifact's directory and metrics; builds what it needs first."""
        if node.given:
            return node.given, {}
        if not node.definition.publishes:
            context = self._context(node, self.run_dir, self.work / node.stage / node.fingerprint)
            with tracked(context, node.definition.trains):
                metrics = self._run(context)
                log_result(context, self.run_dir, metrics, publishes=False)
            return self.run_dir, metrics
        store, _ = self._place(node)
        found = None if force else store.find(node.stage, node.fingerprint)
        if found is None:
            with store.lock(node.stage, node.fingerprint):
                # another job may have built it while this one waited for the lock
                if (sentence := store.recover(node.stage, node.fingerprint)) is not None:
                    self.say(f"{node.stage}: {sentence}")
                found = None if force else store.find(node.stage, node.fingerprint)
                if found is None:
                    return self._publish(node)
        if found not in self._mentioned:
            self._mentioned.add(found)
            self.say(f"{node.stage}: reuses {found}")
        record = read_record(found)
        return found, record["metrics"] if record else {}

    def _publish(self, node: Node) -> tuple[Path, Metrics]:
        store, work = self._place(node)
        target = store.path(node.stage, node.fingerprint)
        context = self._context(node, target, work)
        with tracked(context, node.definition.trains):
            with store.publish(node.stage, node.fingerprint) as out:
                metrics = self._run(replace(context, out=out))
                with unwritable_files_told(target, lambda: _unpublished(node, work)):
                    _complete(node, out, work, metrics, self._licences(node, out))
            log_result(context, target, metrics, publishes=True)
        shutil.rmtree(work, ignore_errors=True)
        self._mentioned.add(target)
        note = "; trained with limited batches, so no other run reuses it" if node.limited else ""
        self.say(f"{node.stage}: built {target} in {metrics['seconds']} s{note}")
        return target, metrics

    def _licences(self, node: Node, out: Path) -> list[str]:
        """Licences of the data that went into a node's artifact or into those it is made from."""
        if node.definition.licences is not None:
            return node.definition.licences(out)
        upstream = (
            needed.given or self._place(needed)[0].path(needed.stage, needed.fingerprint)
            for needed in node.upstream.values()
        )
        return sorted({licence for path in upstream for licence in licences_of(path)})

    def _context(self, node: Node, out: Path, work: Path) -> StageContext:
        """The context of a node's stage; builds what it needs first."""
        return StageContext(
            cfg=node.cfg,
            upstream={role: self.build(needed)[0] for role, needed in node.upstream.items()},
            out=out,
            work=work,
            run_dir=self.run_dir,
            name=node.stage,
            fingerprint=node.fingerprint,
            sweep=self.sweep,
        )

    def _run(self, context: StageContext) -> Metrics:
        self.say(f"{context.name}: runs")
        start = time.perf_counter()
        metrics = run_stage(context)
        return {**metrics, "seconds": round(time.perf_counter() - start, 3)}


def _complete(node: Node, out: Path, work: Path, metrics: Metrics, licences: list[str]) -> None:
    """Adds to a stage's files what every artifact has: its configuration and its record."""
    if node.definition.trains:
        _keep_for_extension(work, out)
    (out / "config.yaml").write_text(_to_yaml(node.cfg))
    write_record(
        out,
        {
            "stage": node.stage,
            "fingerprint": node.fingerprint,
            "upstream": {role: needed.fingerprint for role, needed in node.upstream.items()},
            "licences": licences,
            "metrics": metrics,
        },
    )


def _unpublished(node: Node, work: Path) -> str:
    """What is kept of a stage that ran and could not be published."""
    if kept_items(work):
        return f"the files it has finished are kept in {work}"
    if node.definition.trains and not node.limited:
        return "its training is complete and saved, and only publishing is repeated"
    return "nothing of this stage was saved"


def _keep_for_extension(work: Path, out: Path) -> None:
    """Puts what `resume=PATH` needs into the artifact; a run killed now still finds it in the work directory."""
    for name in (LAST, BEFORE_DECAY, WANDB_ID):
        if (kept := work / name).is_file():
            try:
                os.link(kept, out / name)
            except OSError:  # on another file system, or one without links
                shutil.copyfile(kept, out / name)


def _to_yaml(cfg: Config) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(json.loads(json.dumps(cfg))))
