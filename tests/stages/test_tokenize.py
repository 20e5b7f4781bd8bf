"""The tokenizer of stage `tokenize`: assembled from its parts, or given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pianolm.data import kept_results
from pianolm.errors import UserError
from pianolm.pipeline.graph import Planner
from pianolm.stage import StageContext
from pianolm.stages import prepare, tokenize
from pianolm.stages.tokenize import build_tokenizer
from pianolm.tokenizer.codebook import LEVEL_FRAMES
from pianolm.tokenizer.codebook_file import save_codebook
from pianolm.tokenizer.tokenizer import PianoTokenizer
from tests.tiny import tiny
from tests.tokenizer.toys import CODEC, Layout, beat_times, codebook, made, random_cells


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A codebook and a velocity codec as stages publish them."""
    root = tmp_path_factory.mktemp("parts")
    (root / "codebook").mkdir()
    save_codebook(codebook("untrained"), root / "codebook" / "codebook.npz")
    CODEC.save(root / "velvq")
    return {"codebook": root / "codebook", "velvq": root / "velvq"}


@pytest.mark.parametrize("preset", ["base", "velocity", "ties", "published"])
@pytest.mark.parametrize("mode", ["base", "velocity"])
def test_every_preset_has_both_modes(preset: str, mode: str, parts: dict[str, Path], tmp_path: Path) -> None:
    settings = tiny(tmp_path, f"tokenizer={preset}", f"tokenizer.mode={mode}")["tokenizer"]
    layout = {
        "ties": Layout(ties="explicit", bars=True, tempo="log50_tuned"),
        "published": Layout(exact=False, tempo="published"),
    }
    expected = made(layout.get(preset, Layout())._replace(velocity=mode == "velocity"))
    tokenizer = build_tokenizer(settings, parts)
    assert tokenizer.hashes == expected.hashes
    ids = tokenizer.encode_cells(random_cells(1), beat_times(1), np.arange(1, 24, 4))
    assert np.array_equal(ids, expected.encode_cells(random_cells(1), beat_times(1), np.arange(1, 24, 4)))


def test_repairs_of_a_foreign_codebook_are_said(
    parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = [
        np.stack(
            [(mask[:, None] >> np.arange(frames, dtype=np.uint64)) & np.uint64(1) for mask in level], axis=1
        )
        for level, frames in zip(codebook("untrained").levels, LEVEL_FRAMES, strict=False)
    ]
    levels[0][7] = levels[0][3]
    np.savez(tmp_path / "theirs.npz", l1=levels[0] * 0.8, l2=levels[1] * 0.8, l3=levels[2] * 0.8)
    build_tokenizer({"mode": "base"}, {**parts, "codebook": tmp_path / "theirs.npz"})
    said = capsys.readouterr().out
    assert said == f"tokenize: {tmp_path}/theirs.npz: repaired codes: 1 that repeat another\n"


def test_a_given_tokenizer_decides_what_is_not_asked_for(tmp_path: Path) -> None:
    given = made(Layout(True, "explicit", True))
    given.save_pretrained(tmp_path)
    upstream = {"tokenizer": tmp_path}
    assert build_tokenizer({"mode": "velocity"}, upstream).hashes == given.hashes
    assert (
        build_tokenizer({"mode": "base", "bars": False}, upstream).hashes == given.without_velocities().hashes
    )
    for asked, match in (
        ({"ties": "implicit"}, r"made with ties=explicit, but tokenizer\.ties=implicit is asked for"),
        (
            {"tempo": "published", "exact": False},
            r"made with tempo=log50, exact=True, but tokenizer\.tempo=published",
        ),
    ):
        with pytest.raises(UserError, match=match):
            build_tokenizer(asked, upstream)
    made().save_pretrained(tmp_path / "base")
    with pytest.raises(
        UserError, match=r"made without velocities, but tokenizer\.mode=velocity is asked for"
    ):
        build_tokenizer({"mode": "velocity"}, {"tokenizer": tmp_path / "base"})


@pytest.mark.parametrize("name", ["vqvae.pt", "vqvae.ckpt", "vqvae.bin", "notes.txt"])
def test_a_pickled_codec_is_refused_before_anything_is_built(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02cos\nsystem\n")
    match = rf"upstream\.velvq=.*{name}: a .* file found, expected a directory published by stage=velvq"
    with pytest.raises(UserError, match=match) as error:
        Planner(tiny(tmp_path, "stage=tokenize", f"upstream.velvq={tmp_path / name}")).node("tokenize")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides", [("tokenizer=ties", "tokenizer.exact=false"), ("tokenizer=published", "tokenizer.bars=true")]
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_built(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.exact=false found with .*, expected ties=repeat"):
        Planner(tiny(tmp_path, "stage=tokenize", *overrides)).node("tokenize")


def test_the_layout_determines_the_fingerprint(tmp_path: Path) -> None:
    def fingerprint(*overrides: str) -> Any:
        return Planner(tiny(tmp_path, "tokenizer=base", *overrides)).node("tokenize").fingerprint

    layouts = ["ties=repeat", "ties=implicit", "ties=explicit", "bars=true", "tempo=published", "exact=false"]
    assert len({fingerprint(f"tokenizer.{layout}") for layout in layouts}) == len(layouts)
    assert fingerprint() == fingerprint("tokenizer.ties=repeat")


def test_a_killed_run_goes_on_and_the_tokens_are_those_of_an_unbroken_one(
    parts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny(tmp_path, "data.pieces=7")
    directories = [tmp_path / name for name in ("cells", "prepare work", "whole", "out", "work")]
    cells, prepare_work, whole, out, work = directories
    for directory in directories:
        directory.mkdir()
    prepare.run(StageContext(cfg, {}, cells, prepare_work, tmp_path, "prepare"))
    upstream = {"cells": cells, **parts}
    tokenize.run(StageContext(cfg, upstream, whole, tmp_path / "other work", tmp_path, "tokenize"))
    monkeypatch.setattr(kept_results, "PART", 2)
    original, encoded = PianoTokenizer.encode_cells, list[int]()

    def interrupted(self: PianoTokenizer, *args: Any) -> Any:
        if len(encoded) == 5:
            raise KeyboardInterrupt
        encoded.append(1)
        return original(self, *args)

    monkeypatch.setattr(PianoTokenizer, "encode_cells", interrupted)
    context = StageContext(cfg, upstream, out, work, tmp_path, "tokenize")
    with pytest.raises(KeyboardInterrupt):
        tokenize.run(context)
    encoded.clear()
    tokenize.run(context)
    assert len(encoded) == 3
    for path in whole.rglob("*.*"):
        assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes(), path.name
