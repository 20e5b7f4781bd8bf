"""The page of stages, `docs/stages.md`, from the `Stage` objects and the docstrings of their modules."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pianolm.run import CONFIG_DIR
from pianolm.stage import Stage
from pianolm.stages import find_stage, stage_names

_HEAD = """\
# Stages

`python -m pianolm.run stage=NAME` runs a stage and builds first what it needs and what is missing. *Needs* are those of
the default configuration; `plan=true` prints them for any. *Depends on* says which part of the configuration determines
the result, beside what the stage needs: where anything of it changes, another artifact is built. `generate` without any
option that concerns training takes the bundled model, `pop`, and builds nothing.

This page is made from the `Stage` objects in `pianolm/stages/`; `python -m docs.site.write` writes it again.
"""


def stages_page(metrics: str) -> str:
    """docs/stages.md: a table of the stages in the order of the chain, then a section for each.

    Args:
        metrics: Text of docs/metrics.md, whose sections are linked to.
    """
    cfg, stages = _default_config(), {name: find_stage(name) for name in stage_names()}
    order = sorted(stages, key=lambda name: (_rank(stages[name], cfg), _depth(name, stages, cfg), name))
    rows = [
        f"| [`{name}`](#{name}) | {stages[name].sentence} | {_needs(stages[name], cfg)} |" for name in order
    ]
    table = ["| stage | what it does | needs |", "|---|---|---|", *rows]
    sections = (line for name in order for line in _section(name, stages[name], cfg, metrics))
    return "\n".join([_HEAD, *table, *sections]) + "\n"


def _default_config() -> dict[str, Any]:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = OmegaConf.to_container(compose("config"), resolve=True)
    assert isinstance(cfg, dict)
    return {str(key): value for key, value in cfg.items()}


def _rank(stage: Stage, cfg: dict[str, Any]) -> int:
    """0 for stages that build, 1 for those that use what is built, 2 for tools that need nothing."""
    return 0 if stage.publishes else 1 if stage.needs(cfg) else 2


def _depth(name: str, stages: dict[str, Stage], cfg: dict[str, Any]) -> int:
    """Stages before a stage in the longest chain to it."""
    before = {need.stage for need in stages[name].needs(cfg).values()}
    return max((1 + _depth(stage, stages, cfg) for stage in before), default=0)


def _needs(stage: Stage, cfg: dict[str, Any]) -> str:
    made_by = dict.fromkeys(f"`{need.stage}`" for need in stage.needs(cfg).values())
    return ", ".join(made_by) or "–"


def _section(name: str, stage: Stage, cfg: dict[str, Any], metrics: str) -> Iterator[str]:
    module = importlib.import_module(f"pianolm.stages.{name}")
    yield from ("", f"## {name}", "", _text(module.__doc__ or ""), "", "| | |", "|---|---|")
    for role, need in stage.needs(cfg).items():
        given = f", or what `upstream.{need.given}=PATH` names" if need.given else ""
        mode = f" with `tokenizer.mode={need.mode}`" if need.mode else ""
        yield f"| needs {role} | of stage [`{need.stage}`](#{need.stage}){mode}{given} |"
    if stage.publishes:
        parts = ", ".join(f"`{key}`" for key in stage.settings(cfg))
        yield f"| depends on | {parts} |"
        yield f"| version of its results | {stage.version} |"
    where = f"artifact `artifacts/{name}/FINGERPRINT`" if stage.publishes else "directory of the run"
    yield f"| result | {where}, [metrics](metrics.md#{_metrics_anchor(name, metrics)}) |"
    if stage.trains:
        yield "| training | Lightning; resumes where it was stopped |"
    if stage.objective is not None:
        further = ", ".join(f"`{key}`" for key in stage.headlines)
        yield f"| a sweep minimises | `{stage.objective}`{f' and shows {further}' if further else ''} |"
    yield f"| file | `pianolm/stages/{name}.py` |"


def _text(docstring: str) -> str:
    """A module's docstring without the words that its heading says."""
    text = re.sub(r"^Stage `\w+`: ", "", docstring.strip())
    return text[:1].upper() + text[1:]


def _metrics_anchor(name: str, metrics: str) -> str:
    """Anchor of the section on a stage's metrics."""
    headings = [line[3:] for line in metrics.splitlines() if line.startswith("## ")]
    heading = next(heading for heading in headings if re.match(rf".*\b{name}\b", heading))
    return re.sub(r"[^\w -]", "", heading).replace(" ", "-").lower()


def write(root: Path) -> None:
    """Writes the page of a checkout."""
    metrics = (root / "docs" / "metrics.md").read_text("utf-8")
    (root / "docs" / "stages.md").write_text(stages_page(metrics), "utf-8")
