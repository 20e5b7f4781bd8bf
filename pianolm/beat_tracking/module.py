"""The LightningModule of the beat tracker: the network of `pianolm.music.beat_network` in torch, and its training.

Shapes: B excerpts of a batch, T frames, P = T / 4 groups, F features, S stem width, W trunk width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pianolm.music.beat_agreement import f_measure
from pianolm.music.beat_decoding import decode_bars, decode_beats
from pianolm.music.beat_features import FEATURES, FRAMES_PER_SEC
from pianolm.music.beat_network import GROUP, NORM_EPSILON, STEM_TAPS, TRUNK_TAPS, BeatNetwork, NetworkSizes
from pianolm.training.adamw import adamw_with_cosine
from pianolm.training.small_network import ExportedModule


@dataclass(frozen=True)
class BeatSettings:
    """The network and its training; the first three are options of the group `beats`, the others are fixed.

    Attributes:
        width: W.
        lr: Peak learning rate; a cosine brings it to 0 at `max_steps`.
        max_steps: Optimizer steps.
        levels: Dilations of the trunk: 1, 2, 4, … 2^(levels − 1).
        stacks: How often the trunk goes through these dilations.
        dropout: Share of hidden values left out in training.
        warmup_steps: Steps to the peak.
        weight_decay: Weight decay of matrices.
    """

    width: int
    lr: float
    max_steps: int
    levels: int = 9
    stacks: int = 2
    dropout: float = 0.1
    warmup_steps: int = 200
    weight_decay: float = 0.01

    @classmethod
    def from_config(cls, beats: Mapping[str, Any]) -> BeatSettings:
        """Takes its fields from the group `beats`."""
        return cls(beats["width"], beats["lr"], beats["max_steps"])

    @property
    def sizes(self) -> NetworkSizes:
        """Sizes of the network; the stem has three eighths of the width."""
        return NetworkSizes(
            max(self.width * 3 // 8, 1), self.width, tuple(2**i for i in range(self.levels)) * self.stacks
        )


def _taps(x_BTC: Tensor, taps: int, dilation: int) -> Tensor:
    """[B, T, taps · C] each frame beside its neighbours, zeros beyond both ends: one matrix product is then a
    convolution, which is faster on CPUs than dilated ones."""
    length, reach = x_BTC.shape[1], taps // 2 * dilation
    padded = F.pad(x_BTC, (0, 0, reach, reach))
    return torch.cat([padded[:, tap * dilation : tap * dilation + length] for tap in range(taps)], dim=2)


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.RMSNorm(width, NORM_EPSILON)
        self.conv = nn.Linear(TRUNK_TAPS * width, width)
        self.mix = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.mix.weight)  # every block begins as nothing

    def forward(self, x_BPW: Tensor) -> Tensor:
        hidden = F.relu(self.conv(_taps(self.norm(x_BPW), TRUNK_TAPS, self.dilation)))
        return x_BPW + self.mix(self.dropout(hidden))


class TorchBeatNetwork(nn.Module):
    """The network in torch; its state has the names of `NetworkSizes.shapes`.

    Args:
        sizes: Sizes.
        dropout: Share of hidden values left out in training.
    """

    def __init__(self, sizes: NetworkSizes, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes = sizes
        s, w = sizes.stem, sizes.width
        self.input = nn.Linear(FEATURES, s)
        self.stem = nn.Linear(STEM_TAPS * s, s)
        self.down = nn.Linear(GROUP * s, w)
        self.blocks = nn.ModuleList(_Block(w, dilation, dropout) for dilation in sizes.dilations)
        self.up_norm = nn.RMSNorm(w, NORM_EPSILON)
        self.up = nn.Linear(w, GROUP * s)
        self.head = nn.Linear(STEM_TAPS * s, s)
        self.output = nn.Linear(s, 2)
        nn.init.constant_(self.output.bias, -3.0)  # one frame in twenty is a beat

    def forward(self, features_BTF: Tensor) -> Tensor:
        """[B, T, 2] logits of beat and downbeat; T is a multiple of `GROUP`."""
        batch, length, _ = features_BTF.shape
        # sums over blocks stay in full precision under autocast, matrix products do not
        stem_BTS = F.relu(self.input(features_BTF)).float()
        stem_BTS = stem_BTS + F.relu(self.stem(_taps(stem_BTS, STEM_TAPS, 1)))
        trunk_BPW = self.down(stem_BTS.reshape(batch, length // GROUP, -1)).float()
        for block in self.blocks:
            trunk_BPW = block(trunk_BPW)
        stem_BTS = stem_BTS + self.up(self.up_norm(trunk_BPW)).reshape(batch, length, -1)
        logits_BT2: Tensor = self.output(F.relu(self.head(_taps(stem_BTS, STEM_TAPS, 1)))).float()
        return logits_BT2

    def to_numpy(self) -> BeatNetwork:
        """The network with the current weights, applied by NumPy."""
        return BeatNetwork(
            self.sizes, {name: t.detach().float().cpu().numpy() for name, t in self.state_dict().items()}
        )


class BeatModule(ExportedModule):
    """Trains the network on excerpts: `features` [B, T, F], `target` and `weight` [B, T, 2].

    Args:
        settings: Sizes and training.
    """

    monitor = "val/loss"

    def __init__(self, settings: BeatSettings) -> None:
        super().__init__("seconds")
        self.save_hyperparameters(asdict(settings))
        self.settings = settings
        self.network = TorchBeatNetwork(settings.sizes, settings.dropout)

    def forward(self, features_BTF: Tensor) -> Tensor:
        """[B, T, 2] logits of beat and downbeat."""
        logits_BT2: Tensor = self.network(features_BTF)
        return logits_BT2

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        losses, _ = self._losses(batch)
        batch_size, length, _ = batch["features"].shape
        self.log_throughput(round(batch_size * length / FRAMES_PER_SEC))
        if self.is_logging_step:
            self.log_dict({f"train/{name}": value for name, value in losses.items()})
        return losses["loss"]

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """The losses of a batch, and the F-measures of its decoded beats and downbeats."""
        losses, logits_BT2 = self._losses(batch)
        size = len(logits_BT2)
        self.log_dict({f"val/{name}": value for name, value in losses.items()}, batch_size=size)
        agreement = [
            _agreement(logits, target, weight)
            for logits, target, weight in zip(
                logits_BT2.float().cpu().numpy(),
                batch["target"].cpu().numpy(),
                batch["weight"].cpu().numpy(),
                strict=True,
            )
        ]
        for name, values in zip(("beat_f", "downbeat_f"), zip(*agreement, strict=True), strict=True):
            known = [value for value in values if not math.isnan(value)]
            if known:
                self.log(f"val/{name}", float(np.mean(known)), batch_size=len(known))

    def _losses(self, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Binary cross-entropy a known frame: of beats, of downbeats, and `loss`, their sum; and the logits."""
        logits_BT2, weight_BT2 = self(batch["features"]), batch["weight"]
        entropy = F.binary_cross_entropy_with_logits(
            logits_BT2, batch["target"], weight_BT2, reduction="none"
        )
        beat, downbeat = entropy.sum((0, 1)) / weight_BT2.sum((0, 1)).clamp(min=1)
        return {"loss": beat + downbeat, "loss_beat": beat, "loss_downbeat": downbeat}, logits_BT2

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; linear warm-up, then a cosine down to 0."""
        s = self.settings
        return adamw_with_cosine(self, s.lr, s.max_steps, s.warmup_steps, s.weight_decay)

    def export_weights(self, directory: Path) -> None:
        """Writes the network as `BeatNetwork.from_directory` reads it."""
        self.network.to_numpy().save(directory)


def _agreement(
    logits_T2: NDArray[np.float32], target_T2: NDArray[np.float32], weight_T2: NDArray[np.float32]
) -> tuple[float, float]:
    """F-measures of the decoded beats and downbeats of an excerpt where they are known; NaN where nothing is."""
    beats = decode_beats(logits_T2[:, 0])
    found = (beats, beats[decode_bars(logits_T2, beats)])
    scores = []
    for kind, estimated in enumerate(found):
        known = weight_T2[:, kind] > 0
        annotated = _peak_frames(target_T2[:, kind] * known)
        if not annotated.size:
            scores.append(math.nan)
            continue
        estimated = estimated[known[estimated]]
        scores.append(f_measure(annotated / FRAMES_PER_SEC, estimated / FRAMES_PER_SEC))
    return scores[0], scores[1]


def _peak_frames(target_T: NDArray[np.float32]) -> NDArray[np.int64]:
    """Frames of the beats of a target: its peaks of more than a half."""
    padded = np.pad(target_T, 1)
    is_peak = (target_T > 0.5) & (target_T > padded[:-2]) & (target_T >= padded[2:])
    return np.flatnonzero(is_peak)
