"""Stage `generate` with wrong input: one sentence, and no files."""

from __future__ import annotations

import shutil
from pathlib import Path

import mido
import numpy as np
import pytest
import torch

from pianolm.errors import UserError
from pianolm.music.midi import write_midi
from pianolm.music.notes import make_notes
from tests.stages.playing import MidiFile, generate


def broken_model(source: Path, target: Path, content: bytes | None) -> Path:
    shutil.copytree(source, target)
    weights = target / "model.safetensors"
    if content is None:
        torch.save({"weight": torch.zeros(2)}, weights)
    else:
        weights.write_bytes(content)
    return target


BAD_INPUT = {
    "no file": (["prompt={tmp}/none.mid"], r"none\.mid: no such file"),
    "no MIDI": (["prompt={tmp}/text.mid"], r"text\.mid: not a readable MIDI file"),
    "a folder": (["prompt={tmp}"], r"no such file"),
    "no notes": (["prompt={tmp}/silent.mid"], r"silent\.mid: holds no notes"),
    "no beat track": (
        ["prompt={tmp}/my.mid", "generate.prompt_grid=track"],
        r"my\.mid: no track called beats",
    ),
    "no beat file": (
        ["prompt={tmp}/my.mid", "generate.prompt_grid=file"],
        r"my\.mid: no beat file beside it",
    ),
    "wrong beat file": (["prompt={tmp}/my.mid", "generate.prompt_grid={tmp}/text.mid"], r"text\.mid: line 1"),
    "no such mode": (
        ["generate.mode=improvise"],
        r"generate\.mode=improvise found, expected one of",
    ),
    "dynamics of nothing": (["generate.mode=dynamics"], r"add prompt=FILE\.mid"),
    "dynamics without velocities": (
        ["generate.mode=dynamics", "prompt={tmp}/my.mid", "upstream.model={models}/base"],
        r"model of mode base",
    ),
    "another tokenizer": (
        ["upstream.tokenizer={models}/base"],
        r"upstream\.tokenizer=\S*base: its velocity none is not",
    ),
    "a crowded beat": (["prompt={tmp}/crowded.mid"], r"its last beat has \d+ tokens.*context is 256"),
    "one of them crowded": (
        ["prompt=[{tmp}/my.mid,{tmp}/crowded.mid]"],
        r"^prompt \S*crowded\.mid: its last beat has",
    ),
    "one of them silent": (["prompt=[{tmp}/my.mid,{tmp}/silent.mid]"], r"silent\.mid: holds no notes"),
    "no prompts": (["prompt=[]"], r"prompt=\[\]: an empty list"),
    "a pattern of nothing": (["prompt={tmp}/none*.mid"], r"none\*\.mid: no file matches this pattern"),
    "two of one name": (
        ["prompt=[{tmp}/my.mid,{tmp}/other/my.mid]"],
        r"/my\.mid and \S*other/my\.mid have one name",
    ),
    "one beat file for two": (
        ["prompt=[{tmp}/my.mid,{tmp}/crowded.mid]", "generate.prompt_grid={tmp}/text.mid"],
        r"one beat file for 2 prompts; put a beat file beside each",
    ),
    "no such kind": (
        ["+generate.by_kind.mood={{temperature: 1}}"],
        r"no option 'generate\.by_kind\.mood': the kinds of token are",
    ),
    "too hot": (["generate.temperature=-1"], r"generate\.temperature=-1\.0 found"),
    "no soundfont": (["generate.soundfont={tmp}/none.sf2"], r"soundfont \S*none\.sf2: "),
    "no pieces": (["generate.pieces=0"], r"pieces=0"),
    "no model": (["upstream.model={tmp}/text.mid"], r"text\.mid"),
    "a pickle": (["upstream.model={tmp}/pickle"], r"a pickle found, expected .* safetensors"),
    "sampling of another kind": (
        ["upstream.model={tmp}/hot"],
        r"hot/generation_config\.json: pianolm\.repeat=-1 found, expected a number of at least 0",
    ),
    "half a file": (["upstream.model={tmp}/half"], r"half/model\.safetensors: not readable"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_wrong_input_is_one_sentence_and_leaves_no_files(
    case: str, models: Path, midi_file: MidiFile, tmp_path: Path
) -> None:
    overrides, expected = BAD_INPUT[case]
    for folder in (tmp_path, tmp_path / "other"):
        midi_file(folder / "my.mid")
    (tmp_path / "text.mid").write_text("no music at all\n")
    mido.MidiFile(tracks=[mido.MidiTrack()]).save(tmp_path / "silent.mid")
    crowd = np.arange(128)
    crowded = make_notes(np.zeros(128), 0.1 + crowd / 400, crowd, 1 + crowd % 127)
    write_midi(tmp_path / "crowded.mid", crowded, np.array([0.0, 0.5]))
    broken_model(models / "velocity", tmp_path / "pickle", None)
    broken_model(models / "velocity", tmp_path / "half", b"\x10\0\0\0\0\0\0\0{}")
    hot = Path(shutil.copytree(models / "velocity", tmp_path / "hot"))
    (hot / "generation_config.json").write_text('{"pianolm": {"repeat": -1}}')
    with pytest.raises(UserError, match=expected) as error:
        generate(
            tmp_path, models / "velocity", *(text.format(tmp=tmp_path, models=models) for text in overrides)
        )
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run").glob("*")) or not (tmp_path / "run").exists()
