"""Which model a run plays, measures or starts from, where the configuration names it or leaves it open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pianolm import hub, models
from pianolm.artifacts import ArtifactStore
from pianolm.errors import UserError
from pianolm.json_file import read_object
from pianolm.lm.llama import CONTROL_SHARE, FILL_SHARE, SHARES
from pianolm.pipeline.run_log import LATEST
from pianolm.tokenizer.config import read_settings

Config = dict[str, Any]

TRAINING = (
    "data",
    "codebook",
    "tokenizer",
    "velvq",
    "beats",
    "dynamics",
    "model",
    "trainer",
    "optimizer",
    "loader",
    "loss",
    "base",
    "finetune",
    "experiment",
    "debug",
    "resume",
    "upstream",
)
"""Groups and keys that ask for a training chain: where one is given, `stage=generate` plays what the chain trains."""
_ON_THE_HUB = ("model", "base", "tokenizer")
"""Keys of `upstream` that may name a model on the Hugging Face hub."""
_WITHOUT = {
    FILL_SHARE: f" (loader.{FILL_SHARE}=0 trains without gaps)",
    CONTROL_SHARE: f" (loader.{CONTROL_SHARE}=0 trains without controls)",
}
"""How to train without what the base model learned beside continuing."""


def choose_models(cfg: Config, overrides: Sequence[str] | None, say: Callable[[str], None]) -> Config:
    """The configuration with paths in place of names of models, and with what a given base brings along.

    Args:
        cfg: The resolved configuration.
        overrides: What the user gave, as `key=value`; None where that is unknown.
        say: Prints a line.

    Raises:
        UserError: `latest` is asked for and no model is published, or a model on the hub cannot be fetched.
    """
    given = None if overrides is None else {_key(one) for one in overrides}
    cfg = {
        **cfg,
        "upstream": {role: _path_of(role, value, say) for role, value in cfg["upstream"].items()},
    }
    if cfg["upstream"]["model"] == LATEST:
        return _with_model(cfg, _latest(cfg, say))
    if cfg["upstream"]["model"] is None and cfg["stage"]["name"] == "generate" and given is not None:
        cfg = _bundled_or_chain(cfg, given, say)
    return _with_base(cfg, given or set(), say) if cfg["upstream"]["base"] else cfg


def _path_of(role: str, value: str | None, say: Callable[[str], None]) -> str | None:
    """The path that a name means: of a bundled model or, for a model and what it holds, on the Hugging Face hub."""
    if value in (*models.names(), models.DYNAMICS):
        return str(models.model_path(value))
    if role in _ON_THE_HUB and hub.is_hub_name(value):
        path = models.model_path(str(value))
        say(f"upstream.{role}={value}: takes {path}")
        return str(path)
    return value


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")


def _is_given(given: Iterable[str], *keys: str) -> bool:
    """Whether one of the keys, or an option below it, was given."""
    return any(one == key or one.startswith(f"{key}.") for one in given for key in keys)


def _with_model(cfg: Config, path: Path) -> Config:
    return {**cfg, "upstream": {**cfg["upstream"], "model": str(path)}}


def _gives_dynamics(cfg: Config) -> bool:
    """Whether the run is for a dynamics model; a language model takes its place where one is given."""
    return (cfg["stage"]["name"], cfg["generate"]["mode"]) == ("generate", "dynamics") or (
        (cfg["stage"]["name"], cfg["evaluate"]["name"]) == ("evaluate", "dynamics")
    )


def _latest(cfg: Config, say: Callable[[str], None]) -> Path:
    store = ArtifactStore(Path(cfg["paths"]["artifacts"]).absolute())
    stages = ("dynamics",) if _gives_dynamics(cfg) else ("base", "finetune")
    path = store.newest(stages)
    if path is None:
        raise UserError(
            f"upstream.model=latest: no artifact of stage {' or '.join(stages)} in {store.root}; publish one with "
            f"{' or '.join(f'stage={stage}' for stage in stages)}, or give a path"
        )
    say(f"upstream.model=latest: takes {path}")
    return path


def _bundled_or_chain(cfg: Config, given: Iterable[str], say: Callable[[str], None]) -> Config:
    """The bundled model, unless something is given that a training chain depends on."""
    bundled = models.DYNAMICS if _gives_dynamics(cfg) else models.DEFAULT
    if not models.model_path(bundled).is_dir():
        return cfg
    asked = sorted({one.split(".")[0] for one in given} & set(TRAINING))
    if not asked:
        say(
            f"generate: plays {bundled}, the bundled model; upstream.model=latest plays the last one "
            "trained here, upstream.model=PATH another, and experiment=demo trains one"
        )
        return _with_model(cfg, models.model_path(bundled))
    say(
        f"generate: plays a model trained for the options given ({', '.join(asked)}); upstream.model={bundled} plays "
        "the bundled one"
    )
    return cfg


def _with_base(cfg: Config, given: Iterable[str], say: Callable[[str], None]) -> Config:
    """What a base model's directory brings along: its sizes, its context, its loss, what it learned beside continuing
    (`SHARES`) and, with velocities, its tokenizer.

    Each is brought only where nothing of its kind was given, and the printed line names it.
    """
    directory = Path(str(cfg["upstream"]["base"])).expanduser()
    sizes = _sizes(directory)
    if sizes is None:
        return cfg
    brought, options = [], []
    if not _is_given(given, "model", "experiment"):
        constrained = sizes.pop("constrained")
        loader = {name: sizes.pop(name) for name in ("context", *SHARES)}
        cfg = {**cfg, "model": {**cfg["model"], **sizes}}
        brought.append("sizes")
        loader = {
            name: value
            for name, value in loader.items()
            if not _is_given(given, f"loader.{name}", f"finetune.loader.{name}")
        }
        # a share of 0 goes without saying where it would be 0 anyway
        options = [
            f"loader.{name}={value}{_WITHOUT.get(name, '') if value else ''}"
            for name, value in loader.items()
            if value or cfg["finetune"]["loader"][name]
        ]
        cfg = _for_finetune(cfg, "loader", loader)
        if not _is_given(given, "loss", "finetune.loss"):
            cfg = _for_finetune(cfg, "loss", {"constrained": constrained})
            options.append(f"loss={'constrained' if constrained else 'plain'}")
    parts = ("tokenizer", "codebook", "velvq", "experiment")
    if not _is_given(given, *parts, *(f"upstream.{part}" for part in parts)) and _has_velocities(directory):
        cfg = {**cfg, "upstream": {**cfg["upstream"], "tokenizer": str(directory)}}
        brought.append("tokenizer")
    if brought:
        also = f", with {', '.join(options)}" if options else ""
        say(f"upstream.base: takes the {' and the '.join(brought)} of {directory}{also}")
    return cfg


def _for_finetune(cfg: Config, group: str, values: Mapping[str, Any]) -> Config:
    finetune = {**cfg["finetune"], group: {**cfg["finetune"][group], **values}}
    return {**cfg, group: {**cfg[group], **values}, "finetune": finetune}


def _sizes(directory: Path) -> dict[str, Any] | None:
    """Options of the network by name, as `config.json` of a model directory has them; None where there is none."""
    try:
        config = read_object(directory / "config.json")
        rope = config.get("rope_parameters") or {}
        return {
            "width": int(config["hidden_size"]),
            "layers": int(config["num_hidden_layers"]),
            "heads": int(config["num_attention_heads"]),
            "kv_heads": int(config["num_key_value_heads"]),
            "ffn": int(config["intermediate_size"]),
            "rope_theta": float(rope.get("rope_theta", 10_000.0)),
            "context": int(config["max_position_embeddings"]),
            "constrained": bool(config.get("constrained_loss", False)),
            **{name: float(config.get(name, 0.0)) for name in SHARES},
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # warm_start says what is wrong with it


def _has_velocities(directory: Path) -> bool:
    return (directory / "tokenizer" / "tokenizer.json").is_file() and (
        read_settings(directory / "tokenizer")["mode"] == "velocity"
    )
