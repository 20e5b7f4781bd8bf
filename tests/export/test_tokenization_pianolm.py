"""The tokenizer that comes beside the weights, loaded by transformers as its users do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers.dynamic_module_utils
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from pianolm import PianoLM, Piece
from tests.evaluation.toys import toy_piece


@pytest.fixture(scope="module")
def tokenizer(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        modules = str(tmp_path_factory.mktemp("modules"))
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", modules)
        patch.setattr(sys, "path", [*sys.path])  # to which transformers adds that directory
        yield AutoTokenizer.from_pretrained(exported, trust_remote_code=True)


@pytest.fixture(scope="module")
def model(exported: Path) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(exported)


@pytest.fixture(scope="module")
def midi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("midi") / "my.mid"
    toy_piece(1).to_midi(path)
    return path


def test_files_pieces_and_notes_become_the_ids_of_pianolm(tokenizer: Any, exported: Path, midi: Path) -> None:
    piece = Piece.from_midi(midi)
    expected = PianoLM.from_pretrained(exported).tokenizer.encode(piece).ids.tolist()
    for music in (midi, str(midi), piece):
        assert tokenizer(music)["input_ids"] == expected[:-1]
        assert tokenizer.encode(music, add_eos_token=True) == expected
    assert tokenizer(piece.notes, beats=piece.beats)["input_ids"] == expected[:-1]


def test_ids_become_pieces_again(tokenizer: Any, midi: Path) -> None:
    pieces = [Piece.from_midi(midi), toy_piece(2)]
    inputs = tokenizer(pieces, padding=True, return_tensors="pt")
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    assert inputs["input_ids"].shape[0] == 2
    shorter = int(inputs["attention_mask"].sum(1).argmin())
    assert int(inputs["input_ids"][shorter, 0]) == tokenizer.pad_token_id, "rows are filled on the left"
    for back in (tokenizer.decode(inputs["input_ids"]), tokenizer.batch_decode(inputs["input_ids"])):
        for piece, decoded in zip(pieces, back, strict=True):
            assert decoded.skipped == 0
            assert np.array_equal(decoded.notes["pitch"], piece.notes["pitch"])


def test_its_vocabulary_is_that_of_the_model(tokenizer: Any, model: LlamaForCausalLM) -> None:
    assert len(tokenizer) == tokenizer.vocab_size == model.config.vocab_size
    marks = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert marks == (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id)
    assert tokenizer.convert_ids_to_tokens([marks[0], 3584 + 60]) == ["BOS", "pitch 60"]
    assert tokenizer.convert_tokens_to_ids("pitch 60") == 3584 + 60


def test_text_is_refused_in_one_sentence(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"'a nocturne, please': no such MIDI file; .* not text"):
        tokenizer("a nocturne, please")
    with pytest.raises(ValueError, match=r"int found, expected the path of a MIDI file"):
        tokenizer(3)
    with pytest.raises(ValueError, match=r"together with beats="):
        tokenizer(toy_piece(1).notes)
    for method in ("tokenize", "apply_chat_template", "convert_tokens_to_string", "get_chat_template"):
        with pytest.raises(NotImplementedError, match=r"reads and writes piano music, not text"):
            getattr(tokenizer, method)("a nocturne")


def test_the_network_of_transformers_has_the_logits_of_pianolm(
    tokenizer: Any, model: LlamaForCausalLM, exported: Path, midi: Path
) -> None:
    assert model.dtype == torch.float32
    inputs = tokenizer(midi, return_tensors="pt")
    with torch.no_grad():
        ours = PianoLM.from_pretrained(exported).model(**inputs).logits
        theirs = model(**inputs).logits
    assert float((ours - theirs).abs().max()) <= 1e-5


@pytest.mark.parametrize("from_nothing", [True, False])
def test_greedy_tokens_are_those_of_pianolm(
    from_nothing: bool, tokenizer: Any, model: LlamaForCausalLM, exported: Path, midi: Path
) -> None:
    inputs = tokenizer(midi, return_tensors="pt")
    if from_nothing:
        inputs = {"input_ids": torch.tensor([[tokenizer.bos_token_id]])}
    ids = model.generate(
        **inputs, prefix_allowed_tokens_fn=tokenizer.grammar(inputs), max_new_tokens=50, do_sample=False
    )[0].tolist()
    prompt = None if from_nothing else midi
    (ours,) = PianoLM.from_pretrained(exported).generate_pieces(prompt, beats=50, temperature=0, end="never")
    assert ids == ours.ids[: len(ids)].tolist()


def test_several_pieces_at_once_are_sampled_well_formed(
    tokenizer: Any, model: LlamaForCausalLM, midi: Path
) -> None:
    torch.manual_seed(0)
    inputs = tokenizer([midi, toy_piece(2), toy_piece(3)], padding=True, return_tensors="pt")
    ids = model.generate(
        **inputs, prefix_allowed_tokens_fn=tokenizer.grammar(inputs), max_new_tokens=60, do_sample=True
    )
    grammar = tokenizer.pianolm.grammar
    for row in ids.tolist():
        assert grammar.first_problem([token for token in row if token != tokenizer.pad_token_id]) is None


def test_it_saves_what_it_was_loaded_from(tokenizer: Any, exported: Path, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
    piece = toy_piece(4)
    assert again.encode(piece) == tokenizer.encode(piece)
    assert (tmp_path / "tokenization_pianolm.py").is_file()


def test_files_that_are_missing_are_told(exported: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer_config.json", "tokenization_pianolm.py"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    with pytest.raises(ValueError, match=r"no tokenizer/ with tokenizer.json and codebook.npz found"):
        AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
