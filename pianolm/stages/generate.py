"""Stage `generate`: a model continues prompts, begins anew, fills gaps, or gives a prompt's notes new dynamics.

Reads `prompt`, `generate.*`, `seed` and `hardware`. Needs a published model, or a plain weights file (`upstream.model`)
with a codebook (`upstream.codebook`, and `upstream.velvq` for velocities) or a tokenizer (`upstream.tokenizer`). Writes
to the run directory: for each piece `piece_00.mid` with its tempo, `piece_00.png` and `piece_00.wav`, which of a long
prompt have the last bars only, and `index.html`, a page with all of them. With several prompts their names take the
place of `piece`: `song_00.mid` after `song.mid`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pianolm.errors import UserError
from pianolm.generation.prompts import read_prompts, refuse_prompts_in
from pianolm.stage import Metrics, Need, Stage, StageContext
from pianolm.stages.tokenize import build_tokenizer
from pianolm.tokenizer.config import read_settings, tokenizer_directory

if TYPE_CHECKING:
    from pianolm.dynamics.renderer import DynamicsModel
    from pianolm.generation.piano_lm import PianoLM


def needs(cfg: Mapping[str, Any]) -> dict[str, Need]:
    """The artifacts that the stage reads; all but the model are given by `upstream.*`, never built.

    Raises:
        UserError: The model is a plain weights file and nothing says what its ids mean.
    """
    given = cfg["upstream"]
    trained = "base" if cfg["tokenizer"]["mode"] == "base" else "finetune"
    trained = "dynamics" if cfg["generate"]["mode"] == "dynamics" else trained
    model = {"model": Need(trained, given="model")}
    if given["model"] is None or not Path(str(given["model"])).expanduser().is_file():
        compared = {} if given["tokenizer"] is None else {"tokenizer": Need("", given="tokenizer")}
        return {**model, **compared}
    if given["tokenizer"] is not None:
        return {**model, "tokenizer": Need("", given="tokenizer")}
    if given["codebook"] is None:
        raise UserError(
            f"upstream.model={given['model']}: a plain weights file does not say what its ids mean; add "
            "upstream.codebook=FILE (and upstream.velvq=DIR for velocities), or upstream.tokenizer=DIR, or give the "
            "directory that stage=base or stage=finetune published"
        )
    parts = {role: Need("", given=role) for role in ("codebook", "velvq") if given[role] is not None}
    return {**model, **parts}


def run(ctx: StageContext) -> Metrics:
    """Generates and writes the files of the run to `ctx.run_dir`."""
    from pianolm.dynamics.files import is_dynamics_model
    from pianolm.generation.config import GenerationConfig, told_of_model
    from pianolm.generation.output import PAGE, add_prompts, page_text, write_output
    from pianolm.generation.tasks import generate_output
    from pianolm.report.fluidsynth import choose_soundfont
    from pianolm.training.hardware import require, resolve_hardware, set_threads

    options = ctx.cfg["generate"]
    prompts = read_prompts(ctx.cfg)
    refuse_prompts_in(ctx.run_dir, prompts)
    soundfont = choose_soundfont(options["soundfont"]) if options["audio"] else None
    set_threads(ctx.cfg, 1)
    hardware = resolve_hardware(ctx.cfg["hardware"])
    require(hardware)
    sampling = GenerationConfig.from_options(options)
    model: PianoLM | DynamicsModel
    if is_dynamics_model(ctx.upstream["model"]):
        model = _load_dynamics(ctx)
    else:
        model = _load(ctx, "cuda" if hardware.accelerator == "gpu" else "cpu")
        if told := told_of_model(sampling, model.generation_defaults):
            print(f"{ctx.name}: {told}", flush=True)
        sampling = sampling.over(model.generation_defaults)
        options = {**options, **sampling.sampling}
    pieces, metrics = generate_output(
        model, prompts, options, int(ctx.cfg["seed"]), lambda told: print(f"{ctx.name}: {told}", flush=True)
    )
    pieces = add_prompts(pieces, prompts, options["mode"])
    page_cfg = {**ctx.cfg, "generate": options}
    page = (
        page_text(page_cfg, ctx.upstream["model"], soundfont, prompts, metrics) if options["page"] else None
    )
    write_output(ctx.run_dir, pieces, page, options["audio"], soundfont)
    if page is not None:
        print(f"{ctx.name}: to see and hear the pieces, open {ctx.run_dir / PAGE}", flush=True)
    return {**metrics, "sampling": sampling.words()}


def _load_dynamics(ctx: StageContext) -> DynamicsModel:
    """The published dynamics model, which gives velocities and writes no notes."""
    from pianolm.dynamics.renderer import DynamicsModel

    path, mode = ctx.upstream["model"], ctx.cfg["generate"]["mode"]
    if mode != "dynamics":
        raise UserError(
            f"upstream.model={path}: a dynamics model found, which gives velocities to notes; use it with "
            f"generate.mode=dynamics prompt=FILE.mid, or give a language model for generate.mode={mode}"
        )
    return DynamicsModel.from_pretrained(path)


def _load(ctx: StageContext, device: str) -> PianoLM:
    """The published model, or the weights file with the tokenizer that its parts make."""
    from pianolm.generation.piano_lm import PianoLM

    path = ctx.upstream["model"]
    if path.is_dir():
        lm = PianoLM.from_pretrained(path, device)
        _refuse_other_tokenizer(lm, ctx)
        return lm
    if "tokenizer" in ctx.upstream:
        mode = read_settings(tokenizer_directory(ctx.upstream["tokenizer"]))["mode"]
    else:
        mode = "velocity" if "velvq" in ctx.upstream else "base"
    tokenizer = build_tokenizer({**ctx.cfg["tokenizer"], "mode": mode}, ctx.upstream)
    model = ctx.cfg["model"]
    source = f"upstream.model={path}"
    lm = PianoLM.from_weights(
        path,
        tokenizer,
        heads=int(model["heads"]),
        rope_theta=float(model["rope_theta"]),
        context=int(ctx.cfg["loader"]["context"]),
        device=device,
        source=source,
    )
    print(
        f"{ctx.name}: {source}: heads={model['heads']}, rope_theta={model['rope_theta']} and "
        f"context={lm.generator.context} are those of the configuration, all other sizes those of "
        "the file",
        flush=True,
    )
    return lm


def _refuse_other_tokenizer(lm: PianoLM, ctx: StageContext) -> None:
    """Raises UserError where `upstream.tokenizer` is not the tokenizer of a published model."""
    given = ctx.cfg["upstream"]["tokenizer"]
    if given is None:
        return
    hashes = read_settings(tokenizer_directory(Path(str(given)).expanduser()))["hashes"]
    for part, model_hash in lm.tokenizer.hashes.items():
        if hashes.get(part) != model_hash:
            raise UserError(
                f"upstream.tokenizer={given}: its {part} {hashes.get(part) or 'none'} is not that of the model "
                f"{ctx.upstream['model']}, {model_hash or 'none'}; leave it out, or give the model that was trained "
                "with it"
            )


def _check(cfg: Mapping[str, Any]) -> None:
    read_prompts(cfg)  # a prompt that cannot be read is refused before anything is trained for it


def _describe(cfg: Mapping[str, Any]) -> list[str]:
    from pianolm.generation.config import planned_sampling

    return ["run     generate", *planned_sampling(cfg)]


STAGE = Stage(
    run,
    "Plays a model: MIDI, pictures, sound and a page.",
    needs=needs,
    publishes=False,
    check=_check,
    describe=_describe,
)
