"""Options that do not fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pianolm.config.generate import kind_problems
from pianolm.config.targets import missing_part
from pianolm.hub import is_valid_name

Settings = Mapping[str, Any]
VELOCITIES = 127
"""MIDI velocities of a note."""


def cross_problems(cfg: Settings) -> list[str]:
    """A sentence for each combination of options that does not fit."""
    return [sentence for check in _CHECKS for sentence in check(cfg)]


def _data(cfg: Settings) -> Iterable[str]:
    programs = cfg["data"]["programs"]
    numbers = programs if isinstance(programs, list) else [programs]
    is_valid = all(type(number) is int and 0 <= number <= 127 for number in numbers)
    if programs not in ("piano", "all") and not (numbers and is_valid):
        yield f"data.programs={programs} found, expected piano, all or a list of General MIDI programs from 0 to 127"


def _model(cfg: Settings) -> Iterable[str]:
    model = cfg["model"]
    width, heads, kv_heads = model["width"], model["heads"], model["kv_heads"]
    if width % (2 * heads):
        yield f"model.heads={heads} found, expected a number so that model.width={width} is a multiple of 2 x heads"
    elif heads % kv_heads:
        yield f"model.kv_heads={kv_heads} found, expected a divisor of model.heads={heads}"


def _velvq(cfg: Settings) -> Iterable[str]:
    velvq = cfg["velvq"]
    if velvq["batch_cells"] < velvq["codebook_size"]:
        yield (
            f"velvq.batch_cells={velvq['batch_cells']} found, expected at least velvq.codebook_size="
            f"{velvq['codebook_size']}: the codes start as clusters of the first batch"
        )
    if velvq["form"] == "segment" and velvq["max_segments"] == 1 and velvq["codebook_size"] >= VELOCITIES:
        yield (
            f"velvq.max_segments=1 with velvq.codebook_size={velvq['codebook_size']} leaves nothing to learn: every "
            f"velocity has a code; set velvq.max_segments of at least 2, or fewer than {VELOCITIES} codes"
        )


def _tokenizer(cfg: Settings) -> Iterable[str]:
    tokenizer = cfg["tokenizer"]
    if cfg["stage"]["name"] == "finetune" and tokenizer["mode"] == "base":
        yield "stage=finetune learns velocities and tokenizer=base has none; use tokenizer=velocity or stage=base"
    if not tokenizer["exact"] and (tokenizer.get("ties", "repeat") != "repeat" or tokenizer["bars"]):
        yield (
            "tokenizer.exact=false found, expected tokenizer.ties=repeat and tokenizer.bars=false with it: the "
            "published layout has neither ties nor bars"
        )


def _loader(cfg: Settings) -> Iterable[str]:
    for stage in ("base", "finetune"):
        trainer, loader = cfg[stage]["trainer"], cfg[stage]["loader"]
        if trainer["accumulate_grad_batches"] is not None and loader["micro_batch_tokens"] is not None:
            yield (
                f"trainer.accumulate_grad_batches={trainer['accumulate_grad_batches']} and loader.micro_batch_tokens="
                f"{loader['micro_batch_tokens']} found, expected one of them: each says how a batch is divided"
            )
            return
    for source, weight in cfg["loader"]["source_weights"].items():
        if not weight >= 0:
            yield f"loader.source_weights.{source}={weight} found, expected a number of at least 0"


def _hardware(cfg: Settings) -> Iterable[str]:
    for name in ("devices", "num_nodes"):
        value = cfg["hardware"][name]
        if value != "auto" and (not isinstance(value, int) or value < 1):
            yield f"hardware.{name}={value} found, expected a whole number of at least 1 or auto"
    strategy, precision = cfg["hardware"]["strategy"], cfg["hardware"]["precision"]
    if strategy == "fsdp" and precision == "16-mixed":
        yield "hardware.precision=16-mixed with hardware.strategy=fsdp found, expected bf16-mixed, bf16-true or 32-true"


def _optimizer(cfg: Settings) -> Iterable[str]:
    for stage in ("base", "finetune"):
        strategy = cfg[stage]["trainer"]["strategy"]
        if cfg[stage]["optimizer"]["name"] == "muon" and strategy.startswith("deepspeed"):
            yield (
                f"hardware.strategy={strategy} with optimizer=muon found, expected auto, ddp, fsdp or optimizer=adamw: "
                "Muon needs whole matrices and this strategy divides them"
            )
            return


def _by_kind(cfg: Settings) -> Iterable[str]:
    return kind_problems("generate.", cfg["generate"]["by_kind"])


def _export(cfg: Settings) -> Iterable[str]:
    name = cfg["export"]["push"]
    if name is not None and not is_valid_name(name):
        yield f"export.push={name} found, expected user/name of letters, digits, -, _ and ."


def _entries(cfg: Settings) -> Iterable[str]:
    for group in ("callbacks", "logger"):
        for name, entry in cfg[group].items():
            if entry is not None and not (
                isinstance(entry, Mapping) and isinstance(entry.get("_target_"), str)
            ):
                yield (
                    f"{group}.{name}={entry} found, expected an entry with a _target_, such as "
                    f"{group}.{name}._target_=package.module.Class"
                )
            elif entry is not None and (missing := missing_part(entry["_target_"])) is not None:
                yield f"{group}.{name}._target_={entry['_target_']}: {missing}"


_CHECKS: tuple[Callable[[Settings], Iterable[str]], ...] = (
    _data,
    _model,
    _velvq,
    _tokenizer,
    _loader,
    _hardware,
    _optimizer,
    _by_kind,
    _export,
    _entries,
)
