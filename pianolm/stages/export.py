"""Stage `export`: a model as one directory for transformers and the Hugging Face hub, and its upload.

Reads `export.*`, `seed` and `hardware`. Needs a published model (`upstream.model`), a bundled model or one on the
hub. Writes a folder with the model's name to the run directory: weights, `config.json`, `generation_config.json`,
`tokenizer/`, the tokenizer of transformers (`tokenizer_config.json`, `tokenization_pianolm.py`), the card, credits, a
sample and `artifact.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pianolm import hub
from pianolm.artifacts import licences_of
from pianolm.data.licences import model_licence, require_use
from pianolm.errors import UserError
from pianolm.stage import Metrics, Need, Stage, StageContext


def run(ctx: StageContext) -> Metrics:
    """Writes the directory and, with `export.push`, uploads it.

    Raises:
        UserError: A licence forbids the use, or the hub refuses the upload.
    """
    from pianolm.export.directory import Export, model_name, write_export
    from pianolm.generation.piano_lm import PianoLM
    from pianolm.training.hardware import require, resolve_hardware, set_threads

    options, source = ctx.cfg["export"], ctx.upstream["model"]
    licences = licences_of(source)
    require_use(licences, options["use"], f"upstream.model={source}")
    set_threads(ctx.cfg, 1)
    hardware = resolve_hardware(ctx.cfg["hardware"])
    require(hardware)
    lm = PianoLM.from_pretrained(source, "cuda" if hardware.accelerator == "gpu" else "cpu")
    push = options["push"]
    name = push.split("/")[1] if push else model_name(source)
    roots = (Path(ctx.cfg["paths"]["artifacts"]).absolute(),)
    target = ctx.run_dir / name
    export = Export(source, roots, options["use"], name, push or name, int(ctx.cfg["seed"]))
    write_export(lm, export, target)
    print(f"{ctx.name}: {target}", flush=True)
    metrics: Metrics = {
        "directory": str(target),
        "parameters": sum(parameter.numel() for parameter in lm.model.parameters()),
        "bytes": sum(path.stat().st_size for path in target.rglob("*") if path.is_file()),
        "licence": model_licence(licences),
    }
    if not push:
        return metrics
    url = hub.push(target, push)
    print(f"{ctx.name}: uploaded to {url}", flush=True)
    return {**metrics, "url": url}


def _needs(cfg: Mapping[str, Any]) -> dict[str, Need]:
    return {"model": Need("base" if cfg["tokenizer"]["mode"] == "base" else "finetune", given="model")}


def _check(cfg: Mapping[str, Any]) -> None:
    """Refuses before anything is built what could not be exported, or not be uploaded."""
    given, push = cfg["upstream"]["model"], cfg["export"]["push"]
    if given is not None and Path(str(given)).expanduser().is_file():
        raise UserError(
            f"upstream.model={given}: a file found, expected the directory of a model, which says what its ids mean"
        )
    if push is not None and not cfg["plan"]:
        hub.require_token(f"export.push={push}")


STAGE = Stage(
    run,
    "Model to one directory for transformers and the Hugging Face hub.",
    needs=_needs,
    publishes=False,
    check=_check,
)
