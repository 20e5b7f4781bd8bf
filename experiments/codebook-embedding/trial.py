"""Trains a small model a variant: `python trial.py BASE_TOKENS VELOCITY_TOKENS OUT.jsonl [VARIANT …]`.

The tokens are what stage=tokenize published in either mode. A line of OUT.jsonl is what one variant came to; what
is there already is not trained again.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaForCausalLM

from pianolm import PianoTokenizer
from pianolm.lm import induction_init as beginning
from pianolm.lm.datamodule import LMDataModule
from pianolm.lm.embedding import CodebookEmbedding, SharedOutput, current_table
from pianolm.lm.loss import IGNORE
from pianolm.lm.model import build_llama
from pianolm.lm.module import LanguageModule
from pianolm.lm.optimizer import OptimizerSettings, parameter_groups
from pianolm.lm.scorer import TokenScorer
from pianolm.run import CONFIG_DIR
from pianolm.tokenizer.features import feature_groups
from pianolm.tokenizer.vocabulary import Kind
from pianolm.training.trainer import keep_freed_memory


@dataclass(frozen=True)
class Variant:
    embedding: str = "codebook"
    seed: int = 0
    steps: int = 150
    batch_tokens: int = 2048
    projection_lr: float = 0.2
    mlp: int = 0  # hidden units between features and table; 0 for a linear projection
    free: bool = True
    drop: tuple[str, ...] = ()  # groups of features
    norm: bool = True  # whether features are scaled to norm 1
    frequency: float = 0.0  # weight of one more feature, how often an id occurs in training
    base: str = ""  # rows of velocities after BASE_STEPS steps without velocities; empty: no base
    begins: str = (
        "plain"  # what adds to the residual stream: as all else, smaller by depth as in pianolm, or zero
    )
    repeats: str = (
        ""  # how attention begins: at random, as it "copies" in the first layer, or as it "looks up"
    )
    reach: int = beginning.REACH  # how many tokens back are compared where it looks up
    free_lr: float = 1.0  # of the free part
    tied: bool = True  # else the output layer is a second codebook embedding
    wide: bool = False  # the body of experiments/tokenizer-comparison in place of model=tiny
    learning_rate: float = 2e-3


BASE_STEPS = 100
BLURRED, RAW = ("onset_blurred", "end_blurred"), ("onset", "end")
ALL_BUT_KIND = (*BLURRED, *RAW, "sustain", "edges", "pitch", "tempo", "velocity", "velocity_of_two")
LATER = ("duration", "segments", "velocity_alone")
"""Groups of features that came when the rows above theirs had been measured."""
OLD = {"drop": LATER}
SMALLER = {"projection_lr": 1.0, "begins": "smaller"}
WIDE = {
    "wide": True,
    "learning_rate": 1e-3,
    "steps": 200,
    "batch_tokens": 1024,
    "projection_lr": 1.0,
}
WIDE_BODY = {"width": 256, "layers": 4, "heads": 4, "kv_heads": 4, "ffn": 640}
LONG = {"steps": 200, "batch_tokens": 4096}
AFTER_BASE = {"steps": 50, "projection_lr": 1.0}
VARIANTS = {
    "table": Variant("table"),
    "codebook": Variant(),
    "codebook, seed 1": Variant(seed=1),
    "rate x 1.0, seed 1": Variant(seed=1, projection_lr=1.0),
    **{f"rate x {x}": Variant(projection_lr=x) for x in (0.1, 0.5, 1.0, 2.0)},
    "no free part": Variant(free=False),
    "MLP of 256": Variant(mlp=256),
    "features not of norm 1": Variant(norm=False),
    "nothing blurred": Variant(drop=BLURRED),
    "nothing but blurred": Variant(drop=RAW),
    "no sustain": Variant(drop=("sustain",)),
    "no pattern": Variant(drop=(*BLURRED, *RAW, "sustain", "edges")),
    "no features but the kind": Variant(drop=ALL_BUT_KIND),
    "no pitch": Variant(drop=("pitch",)),
    "no velocity": Variant(drop=("velocity", "velocity_of_two")),
    "with frequencies": Variant(frequency=1.0, projection_lr=1.0),
    "table after base": Variant("table", base="given", **AFTER_BASE),
    **{
        f"codebook after base, {base}": Variant(base=base, **AFTER_BASE)
        for base in ("given", "own", "own and mean")
    },
    "table, long": Variant("table", **LONG),
    "codebook, long": Variant(**LONG),
    "codebook, long, rate x 1.0": Variant(projection_lr=1.0, **LONG),
}
# what has been measured before there were those features
VARIANTS = {name: dataclasses.replace(one, drop=(*one.drop, *LATER)) for name, one in VARIANTS.items()}
VARIANTS |= {
    "table, begins smaller": Variant("table", begins="smaller"),
    "codebook, begins smaller, without later features": Variant(**SMALLER, **OLD),
    "codebook, begins smaller": Variant(**SMALLER),
    "codebook, begins smaller, seed 1": Variant(seed=1, **SMALLER),
    "codebook, begins at zero": Variant(projection_lr=1.0, begins="zero"),
    "codebook, begins smaller, free part x 0.2": Variant(free_lr=0.2, **SMALLER),
    "codebook, begins smaller, output not tied": Variant(tied=False, **SMALLER),
    "codebook, long, begins smaller": Variant(**SMALLER, **LONG),
    "codebook, wide": Variant(**WIDE),
    "codebook, wide, begins smaller": Variant(begins="smaller", **WIDE),
    "codebook, wide, begins smaller, free part x 0.2": Variant(begins="smaller", free_lr=0.2, **WIDE),
    "codebook, wide, begins smaller, output not tied": Variant(begins="smaller", tied=False, **WIDE),
    "table, wide": Variant("table", **WIDE),
    "table, wide, begins smaller": Variant("table", begins="smaller", **WIDE),
    "table, copies": Variant("table", repeats="copies", begins="smaller"),
    "codebook, copies": Variant(repeats="copies", **SMALLER),
    "codebook, wide, copies": Variant(repeats="copies", begins="smaller", **WIDE),
    "table, wide, copies": Variant("table", repeats="copies", begins="smaller", **WIDE),
    "table, looks up": Variant("table", repeats="looks up", begins="smaller"),
    "codebook, looks up": Variant(repeats="looks up", **SMALLER),
    "codebook, wide, looks up": Variant(repeats="looks up", begins="smaller", **WIDE),
    "codebook, wide, looks up 2 back": Variant(repeats="looks up", reach=2, begins="smaller", **WIDE),
    "codebook, wide, looks up 1 back": Variant(repeats="looks up", reach=1, begins="smaller", **WIDE),
    "table, wide, looks up": Variant("table", repeats="looks up", begins="smaller", **WIDE),
}


class Tried(CodebookEmbedding):
    """The embedding with what was tried and not kept."""

    def __init__(self, features_VF: np.ndarray, width: int, variant: Variant, std: float) -> None:
        super().__init__(features_VF, width, std)
        self.variant = variant
        self.free.requires_grad_(variant.free)
        if variant.mlp:
            self.hidden = nn.Linear(features_VF.shape[1], variant.mlp)
            nn.init.normal_(self.hidden.weight)  # features of norm 1: hidden units of variance 1
            self.projection = nn.Linear(variant.mlp, width, bias=False)
            nn.init.normal_(self.projection.weight, std=std * (2 / variant.mlp) ** 0.5)

    def table(self) -> Tensor:
        if not self.variant.mlp:
            return super().table()
        return self.projection(nn.functional.gelu(self.hidden(self.features))) + self.free


class OwnOutput(SharedOutput):
    """An output layer that is computed by itself."""

    @property
    def weight(self) -> Tensor:
        return self._embedding[0].table()


def features(tokenizer: PianoTokenizer, variant: Variant, data: LMDataModule) -> np.ndarray:
    groups = [values for name, values in feature_groups(tokenizer).items() if name not in variant.drop]
    if variant.frequency:
        counts_V = data._reader.piece_label_counts(data.store.split("train"))
        kinds, common_V = tokenizer.vocabulary.kind_of, np.log(counts_V + 1)
        mean_V = (np.bincount(kinds, common_V) / np.maximum(np.bincount(kinds), 1))[kinds]
        groups.append((variant.frequency * (common_V - mean_V) / 3)[:, None].astype(np.float32))
    joined = np.concatenate(groups, axis=1)
    if variant.norm:
        joined /= np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-9)
    return joined


def conf(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIG_DIR / f"{name}.yaml").read_text())


def make_model(
    tokenizer: PianoTokenizer, variant: Variant, context: int, data: LMDataModule
) -> LlamaForCausalLM:
    v = tokenizer.vocabulary
    torch.manual_seed(variant.seed)
    settings = {**conf("model/tiny"), **(WIDE_BODY if variant.wide else {}), "embedding": "table"}
    model = build_llama(settings, v.size, v.pad, v.bos, v.eos, context)
    begin(model, variant)
    if variant.embedding == "codebook":
        given, config = features(tokenizer, variant, data), model.config
        embedding = Tried(given, config.hidden_size, variant, config.initializer_range)
        model.set_input_embeddings(embedding)
        model.lm_head = SharedOutput(embedding)
        if not variant.tied:
            output = Tried(given, config.hidden_size, variant, config.initializer_range)
            model.output_embedding = output  # so that its parameters are found
            model.lm_head, model.config.tie_word_embeddings = OwnOutput(output), False
    if variant.repeats == "looks up":
        beginning.initialize_induction_heads(model, variant.reach)
    return model


@torch.no_grad()
def begin(model: LlamaForCausalLM, variant: Variant) -> None:
    """Fresh weights without what pianolm does to them, and what a variant wants of it."""
    depth, std = (2 * model.config.num_hidden_layers) ** 0.5, model.config.initializer_range
    larger = {"smaller": 1.0, "plain": depth, "zero": 0.0}[variant.begins]
    nn.init.normal_(model.get_input_embeddings().weight, std=std)
    for layer in model.model.layers:
        attention = layer.self_attn
        for weights in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
            nn.init.normal_(weights.weight, std=std)
        attention.o_proj.weight *= larger / depth
        layer.mlp.down_proj.weight *= larger
    if variant.repeats == "copies":
        beginning.initialize_copying(model.model.layers[0].self_attn)


def optimizer_groups(model: nn.Module, schedule: OptimizerSettings, variant: Variant) -> list[dict[str, Any]]:
    """The groups of the stages; free parts and projections, with the MLP before them, at rates of their own."""
    rates = {".free": variant.free_lr, ".projection.weight": variant.projection_lr}
    rates |= {".hidden.weight": variant.projection_lr, ".hidden.bias": variant.projection_lr}
    groups = parameter_groups(model, schedule)
    for ending, rate in rates.items():
        chosen = [p for name, p in model.named_parameters() if name.endswith(ending)]
        for group in groups:
            group["params"] = [p for p in group["params"] if not any(p is other for other in chosen)]
        if chosen:
            groups.append({"params": chosen, "weight_decay": 0.0, "lr": schedule.learning_rate * rate})
    return groups


@dataclass
class Training:
    """One run: its tokens, its model, and what it came to."""

    tokens: Path
    variant: Variant

    def __post_init__(self) -> None:
        steps = self.variant.steps
        self.settings = {
            **conf("trainer/default"),
            "max_steps": steps,
            "batch_tokens": self.variant.batch_tokens,
            "warmup_steps": steps // 4,
            "learning_rate": self.variant.learning_rate,
        }
        self.tokenizer = PianoTokenizer.from_pretrained(self.tokens / "tokenizer")
        self.data = LMDataModule(self.tokens, self.settings, seed=self.variant.seed)
        self.model = make_model(self.tokenizer, self.variant, self.settings["context"], self.data)

    def run(self) -> dict[str, Any]:
        schedule = OptimizerSettings.from_config(self.settings)
        module = LanguageModule(
            self.model, schedule, self.tokenizer.vocabulary.kind_of, self.tokenizer.strikes_per_id
        )
        groups = optimizer_groups(self.model, schedule, self.variant)
        optimizer = torch.optim.AdamW(groups, schedule.learning_rate, schedule.betas)
        scheduler = LambdaLR(optimizer, schedule.factor)
        start, losses = time.process_time(), []
        for batch in self.data.train_dataloader():
            loss = module.target_nll(batch).nats / batch["n_targets"]
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings["grad_clip"])
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            losses.append(round(loss.item(), 4))
        seconds = time.process_time() - start
        found = {**self.validate(module), "cpu_seconds_a_step": seconds / self.variant.steps}
        return {**{name: round(value, 4) for name, value in found.items()}, "train_losses": losses}

    @torch.no_grad()
    def validate(self, module: LanguageModule) -> dict[str, float]:
        losses = TokenScorer(module._kind_of, module._strikes)
        for batch in self.data.val_dataloader():
            _, nll, labels = module.target_nll(batch)
            losses.add(nll, labels, batch["performance"][batch["labels"] != IGNORE])
        return losses.metrics()


@torch.no_grad()
def start_from(base: LlamaForCausalLM, training: Training) -> None:
    """Weights of a base model; the rows of velocities, which it never met, as the variant says."""
    model, how = training.model, training.variant.base
    given_VD = current_table(base)
    body = {
        name: value for name, value in base.state_dict().items() if "embed" not in name and "head" not in name
    }
    model.load_state_dict(body, strict=False)
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, CodebookEmbedding):
        embedding.weight.copy_(given_VD)
        return
    velocity_V = torch.from_numpy(training.tokenizer.vocabulary.kind_of == Kind.VELOCITY)
    embedding.free.copy_(embedding.free_part(given_VD, None if how == "given" else velocity_V))
    if how == "own and mean":
        embedding.free[velocity_V] += given_VD[velocity_V].mean(dim=0)


def result(
    name: str, base_tokens: Path, velocity_tokens: Path, bases: dict[str, LlamaForCausalLM]
) -> dict[str, Any]:
    variant = VARIANTS[name]
    training = Training(velocity_tokens, variant)
    if variant.base:
        if variant.embedding not in bases:
            of_base = dataclasses.replace(variant, steps=BASE_STEPS, base="")
            before = Training(base_tokens, of_base)
            before.run()
            bases[variant.embedding] = before.model
        start_from(bases[variant.embedding], training)
    return {"name": name, **dataclasses.asdict(variant), **training.run()}


def main() -> None:
    base_tokens, velocity_tokens, out = map(Path, sys.argv[1:4])
    torch.set_num_threads(1)
    keep_freed_memory()
    bases: dict[str, LlamaForCausalLM] = {}
    for name in sys.argv[4:] or VARIANTS:
        lines = out.read_text().splitlines() if out.is_file() else []
        if name in {json.loads(line)["name"] for line in lines}:
            continue
        found = result(name, base_tokens, velocity_tokens, bases)
        with out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(f"{name}: {found['bits_per_note']} bits a note", flush=True)


if __name__ == "__main__":
    main()
