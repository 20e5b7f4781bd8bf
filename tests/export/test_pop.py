"""The bundled model, exported: transformers and pianolm play the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers.dynamic_module_utils
from transformers import AutoModelForCausalLM, AutoTokenizer

from pianolm import PianoLM, Piece, models
from pianolm.export.directory import Export, write_export

TOKENS = 200


@pytest.mark.slow
def test_the_first_200_greedy_tokens_are_the_same_in_transformers_and_pianolm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    source, target = models.model_path("pop"), tmp_path / "pop"
    write_export(PianoLM.from_pretrained("pop"), Export(source, (), "commercial", "pop", "pop"), target)
    tokenizer = AutoTokenizer.from_pretrained(target, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(target)
    exported, box = PianoLM.from_pretrained(target), PianoLM.from_pretrained("pop")
    prompt = target / "sample.mid"
    for music, given in (
        (None, {"input_ids": torch.tensor([[tokenizer.bos_token_id]])}),
        (Piece.from_midi(prompt), tokenizer(prompt, return_tensors="pt")),
    ):
        with torch.no_grad():
            difference = model(**given).logits - box.model(**given).logits
        assert float(difference.abs().max()) <= 1e-5
        ids = model.generate(
            **given,
            prefix_allowed_tokens_fn=tokenizer.grammar(given),
            max_new_tokens=TOKENS,
            do_sample=False,
        )[0].tolist()
        assert len(ids) == len(given["input_ids"][0]) + TOKENS
        for lm in (exported, box):
            (ours,) = lm.generate_pieces(
                music, beats=100, end="never", temperature=0.0, by_kind={}, repeat=0.0
            )
            assert ours.ids[: len(ids)].tolist() == ids
