"""`PianoLM`: a published model with its tokenizer, ready to play."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.music.piece import Piece
from pianolm.nn.decoding import Sampling, sample
from pianolm.nn.weights import without_progress_bars
from pianolm.tokens.tokenizer import PianoTokenizer


class PianoLM:
    """A Llama over piano tokens and the tokenizer it was trained with.

    Args:
        model: The network; its vocabulary is the tokenizer's.
        tokenizer: The tokenizer.
    """

    def __init__(self, model: LlamaForCausalLM, tokenizer: PianoTokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, directory: str | Path, device: str | torch.device = "cpu") -> PianoLM:
        """Reads `config.json`, `model.safetensors` and `tokenizer/`; no pickle.

        Raises:
            UserError: A file is missing or unreadable, or model and tokenizer do not fit.
        """
        directory = Path(directory)
        for name in ("config.json", "model.safetensors"):
            if not (directory / name).is_file():
                raise UserError(
                    f"{directory}: no {name}; expected a directory published by stage=base or stage=finetune"
                )
        tokenizer = PianoTokenizer.from_pretrained(directory)
        try:
            with without_progress_bars():
                model = LlamaForCausalLM.from_pretrained(
                    directory, use_safetensors=True, local_files_only=True
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{directory}: the model cannot be read ({error})") from error
        if model.config.vocab_size != tokenizer.vocabulary.size:
            raise UserError(
                f"{directory}: the model has {model.config.vocab_size} ids, the tokenizer beside it "
                f"{tokenizer.vocabulary.size}; publish the model again"
            )
        return cls(model.to(device), tokenizer)  # type: ignore[arg-type]  # transformers wraps `to` and loses its types

    def generate(
        self,
        prompt: Piece | None = None,
        beats: int = 32,
        pieces: int = 1,
        temperature: float = 0.95,
        top_p: float = 0.97,
        top_k: int = 0,
        seed: int = 0,
    ) -> list[Piece]:
        """Pieces of new music.

        Args:
            prompt: Music to go on from; it stands at the start of every piece returned.
            beats: New beats a piece; a piece is shorter where the model ends it.
            pieces: How many.
            temperature: 0 takes the most likely token.
            top_p: See `pianolm.nn.decoding.Sampling`.
            top_k: Likewise.
            seed: The same seed gives the same pieces.
        """
        sequences = self.generate_ids(prompt, beats, pieces, Sampling(temperature, top_k, top_p), seed)
        return [self.tokenizer.decode(ids) for ids in sequences]

    def generate_ids(
        self, prompt: Piece | None, beats: int, pieces: int, sampling: Sampling, seed: int
    ) -> Sequence[NDArray[np.int64]]:
        """The ids [T] behind `generate`, prompt included."""
        if beats < 1 or pieces < 1:
            raise UserError(f"beats={beats}, pieces={pieces} found, expected at least 1 of each")
        start = np.array([self.tokenizer.vocabulary.bos], np.int64)
        if prompt is not None:
            start = self.tokenizer.encode(prompt).ids
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(pieces, np.uint32)]
        return sample(self.model, self.tokenizer.grammar, [start] * pieces, beats, seeds, sampling)
