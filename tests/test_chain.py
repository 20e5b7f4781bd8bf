"""The tiny twins chained: prepare → codebook → velvq → tokenize → base → finetune → generate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import LlamaForCausalLM

from pianolm import PianoLM, PianoTokenizer, Piece
from pianolm.artifacts import ArtifactStore, fingerprint
from pianolm.data.cell_store import CellStore
from pianolm.data.token_store import TokenStore
from pianolm.errors import UserError
from pianolm.pipeline.graph import Builder, Planner
from pianolm.run import execute
from pianolm.training.hardware import resolve_hardware, trainer_arguments

from .stages.playing import MIDI_ONLY
from .tiny import TINY, tiny


def only(root: Path, stage: str, mode: str | None = None) -> Path:
    """The artifact of a stage; of the two token stores that of a mode."""
    found = [p for p in (root / "artifacts" / stage).iterdir() if p.is_dir()]
    if mode is not None:
        found = [p for p in found if PianoTokenizer.from_pretrained(p).mode == mode]
    assert len(found) == 1
    return found[0]


def test_the_run_directory_holds_music_pictures_and_metrics(chain: Path) -> None:
    metrics = json.loads((chain / "run" / "metrics.json").read_text())
    assert metrics["pieces"] == 2
    assert metrics["valid_fraction"] == 1.0
    for number in range(2):
        piece = Piece.from_midi(chain / "run" / f"piece_{number:02d}.mid", beats="tempo_map")
        assert 1 <= piece.n_beats <= 5
        with Image.open(chain / "run" / f"piece_{number:02d}.png") as picture:
            assert picture.width > 500


def test_artifacts_describe_themselves_and_leave_nothing_unfinished(chain: Path) -> None:
    for stage in ("prepare", "codebook", "velvq", "base", "finetune"):
        folder = only(chain, stage)
        record = json.loads((folder / "artifact.json").read_text())
        assert record["fingerprint"] == folder.name
        assert record["versions"]["torch"]
        assert record["licences"] == ["none needed: composed by this program"], (
            "those of the data, in every stage"
        )
        assert record["metrics"]["seconds"] > 0
        assert (folder / "config.yaml").is_file()
    assert not list((chain / "artifacts").rglob("*.partial"))
    assert not list((chain / "work").rglob("*.ckpt")), "work of published artifacts is removed"


def test_metrics_have_the_promised_keys(chain: Path) -> None:
    def keys(folder: Path) -> set[str]:
        return set(json.loads((folder / "artifact.json").read_text())["metrics"])

    assert keys(only(chain, "prepare")) >= {
        "files",
        "rejected",
        "repaired",
        "pieces_train",
        "notes",
        "cells",
        "beats",
    }
    assert keys(only(chain, "codebook")) >= {"coverage_l1", "coverage_l2", "coverage_l3", "codes_per_cell"}
    assert keys(only(chain, "velvq")) >= {"val/velocity_mae", "val/codes_used", "val/code_perplexity"}
    lm = {"val/loss", "val/loss_tempo", "val/loss_pitch", "val/loss_pattern", "val/unigram_entropy"}
    lm |= {
        "val/bits_per_note",
        "train/tokens_per_second",
        "train/padding_fraction",
        "parameters",
        "tokens_seen",
    }
    assert keys(only(chain, "base")) >= lm
    assert keys(only(chain, "finetune")) >= lm | {"val/loss_velocity"}
    assert "val/loss_velocity" not in keys(only(chain, "base"))


def test_token_stores_say_what_the_cells_say(chain: Path) -> None:
    """Ids decode to exactly the cells they were made from, velocities included as the codec gives them."""
    cells = CellStore.open(only(chain, "prepare"))
    for mode in ("base", "velocity"):
        tokens = TokenStore.open(only(chain, "tokenize", mode))
        tokenizer = PianoTokenizer.from_pretrained(tokens.directory)
        for index in range(len(cells)):
            ids = np.asarray(tokens.ids(index), np.int64)
            back, true = tokenizer.decode(ids), cells.cells(index)
            assert tokenizer.grammar.is_complete(ids)
            assert back.skipped == 0
            for name in ("beat", "pitch", "sustain", "onset"):
                assert np.array_equal(getattr(back.cells, name), getattr(true, name)), name
            if mode == "velocity":
                assert tokenizer.codec is not None
                codes = tokenizer.codec.encode(true)
                expected = Piece.from_cells(back.cells, back.beats_sec).notes["velocity"]
                assert np.array_equal(back.notes["velocity"], expected)
                assert codes.max() < 32
        assert {row.id: row.flat for row in tokens.pieces} == {row.id: row.flat for row in cells.pieces}


def test_flat_pieces_mask_exactly_their_velocity_tokens(chain: Path) -> None:
    tokenizer = PianoTokenizer.from_pretrained(only(chain, "finetune"))
    store = CellStore.open(only(chain, "prepare"))
    piece = Piece.from_cells(store.cells(0), np.asarray(store.beats_sec(0)))
    flat, lively = tokenizer.encode(piece.with_flat(True)), tokenizer.encode(piece.with_flat(False))
    assert lively.loss_mask.all()
    assert (~flat.loss_mask).sum() == len(piece.cells)
    assert np.array_equal(flat.ids, lively.ids)


def test_published_model_loads_in_transformers_and_generates_by_seed(chain: Path) -> None:
    folder = only(chain, "finetune")
    assert LlamaForCausalLM.from_pretrained(folder).config.vocab_size == 4789
    lm = PianoLM.from_pretrained(folder)
    first, again = (lm.generate(beats=3, pieces=2, seed=5) for _ in range(2))
    other = lm.generate(beats=3, pieces=1, seed=6)
    assert [np.array_equal(a.notes, b.notes) for a, b in zip(first, again, strict=True)] == [True, True]
    assert not np.array_equal(first[0].notes, other[0].notes)


def test_a_second_run_reuses_everything_and_a_plan_says_so(chain: Path) -> None:
    cfg = tiny(chain, "stage=finetune", "plan=true")
    lines = Builder(cfg, chain / "unused").describe(Planner(cfg).node("finetune"))
    assert len(lines) == 1
    assert lines[0].startswith("reuse   finetune")
    assert execute(cfg, chain / "unused") == {}
    assert not (chain / "unused").exists()
    before = only(chain, "finetune").stat().st_mtime_ns
    metrics = execute(tiny(chain, "stage=finetune"), chain / "second")
    assert metrics["artifact"] == str(only(chain, "finetune"))
    assert metrics["val/loss"] > 0
    assert only(chain, "finetune").stat().st_mtime_ns == before


def test_only_what_a_change_reaches_is_built_again(chain: Path) -> None:
    def plan(*overrides: str) -> dict[str, str]:
        cfg = tiny(chain, *overrides)
        lines = Builder(cfg, chain / "unused").describe(Planner(cfg).node("finetune"))
        return {line.split()[2].split("/")[-2]: line.split()[0] for line in lines}

    rebuilt = plan("finetune.optimizer.lr=1e-4")
    assert rebuilt == {"tokenize": "reuse", "base": "reuse", "finetune": "build"}
    rebuilt = plan("velvq.max_steps=7")
    assert rebuilt["velvq"] == rebuilt["tokenize"] == rebuilt["finetune"] == "build"
    assert rebuilt["base"] == rebuilt["codebook"] == rebuilt["prepare"] == "reuse"
    assert plan("compute.loader_workers=1", "logger=wandb") == {"finetune": "reuse"}


def test_a_finished_artifact_is_extended_by_its_path(chain: Path, tmp_path: Path) -> None:
    finished = only(chain, "base")
    assert (finished / "last.ckpt").is_file()
    longer = ("stage=base", "base.trainer.max_steps=9", f"resume={finished}")
    metrics = execute(tiny(chain, *longer, f"paths.artifacts={tmp_path}/artifacts"), tmp_path / "run")
    assert metrics["resumed_from_step"] == 6
    record = json.loads((Path(metrics["artifact"]) / "artifact.json").read_text())
    plain = Planner(tiny(chain, *longer[:2])).node("base", "base")
    assert record["fingerprint"] != plain.fingerprint  # it is not what nine steps from the start would be


def test_base_mode_generates_without_a_codec(chain: Path) -> None:
    metrics = execute(tiny(chain, "stage=generate", "tokenizer=base", *MIDI_ONLY), chain / "base_run")
    assert metrics["valid_fraction"] == 1.0
    cfg = tiny(chain, "tokenizer=base")
    assert not any("velvq" in line for line in Builder(cfg, chain).describe(Planner(cfg).node("generate")))
    with pytest.raises(UserError, match="tokenizer=velocity or stage=base"):
        execute({**cfg, "stage": {"name": "finetune"}}, chain / "refused")


def test_a_codebook_made_elsewhere_is_brought_in_as_six_plain_arrays(tmp_path: Path) -> None:
    """Arrays as the README describes them, written without pianolm."""
    rng = np.random.default_rng(0)
    arrays = {}
    for level, (count, frames) in enumerate([(2048, 48), (1024, 24), (512, 12)], 1):
        lengths = np.arange(count) % frames + 1
        starts = np.minimum(np.arange(count) // frames, frames - lengths)
        masks = dict.fromkeys(((1 << int(n)) - 1) << int(s) for n, s in zip(lengths, starts, strict=True))
        while len(masks) < count:
            masks[int(rng.integers(1, 1 << frames))] = None
        sustain = np.array(list(masks), np.uint64)
        if level > 1:
            sustain[0] = 0  # silence
        arrays[f"l{level}_sustain"], arrays[f"l{level}_onset"] = sustain, sustain & np.uint64(1)
    own = tmp_path / "own.npz"
    np.savez(own, **arrays)
    metrics = execute(
        tiny(tmp_path, "stage=evaluate", "tokenizer=base", f"upstream.codebook={own}"), tmp_path / "run"
    )
    assert metrics["notes_exact"] > 0.99
    tokenizer = PianoTokenizer.from_pretrained(only(tmp_path, "tokenize"))
    assert np.array_equal(tokenizer.codebook.levels[0].sustain, arrays["l1_sustain"])
    record = json.loads((only(tmp_path, "tokenize") / "artifact.json").read_text())
    assert record["licences"] == ["none needed: composed by this program", "unknown"], "of the given codebook"
    np.savez(own, **{**arrays, "l2_onset": ~arrays["l2_onset"]})
    with pytest.raises(UserError, match=r"own\.npz: codebook L2: a pattern has an onset outside its sustain"):
        execute(
            tiny(tmp_path, "stage=tokenize", "tokenizer=base", f"upstream.codebook={own}"), tmp_path / "run"
        )


def test_given_artifacts_are_taken_and_mismatches_named(chain: Path, tmp_path: Path) -> None:
    model, base = only(chain, "finetune"), only(chain, "base")
    plays = ("stage=generate", *MIDI_ONLY)
    metrics = execute(tiny(tmp_path, *plays, f"upstream.model={model}"), tmp_path / "run")
    assert metrics["pieces"] == 1
    assert not (tmp_path / "artifacts").exists(), "nothing had to be built"
    metrics = execute(tiny(tmp_path, *plays, f"upstream.model={base}"), tmp_path / "run2")
    assert metrics["distinct_velocities"] == 1, "the model decides the mode"
    with pytest.raises(UserError, match=r"upstream\.base=.*nowhere: no such file"):
        execute(tiny(chain, f"upstream.base={tmp_path}/nowhere"), tmp_path / "run3")
    other = tiny(tmp_path, "data.seed=7", f"upstream.base={base}")
    with pytest.raises(UserError, match=r"codebook \w+.*codebook"):
        execute(other, tmp_path / "run4")


def test_a_build_that_fails_publishes_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def fail() -> None:
        with store.publish("prepare", "abc") as out:
            (out / "half").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert store.find("prepare", "abc") is None
    assert list((tmp_path / "prepare").iterdir()) == []


def test_fingerprints_do_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def run_cli(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pianolm.run", *arguments],
        cwd=root,
        env={**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_the_codec_is_the_same_on_any_hardware(chain: Path) -> None:
    """It is the same artifact, so that one trained on another machine is reused; see `FULL_PRECISION`."""
    nodes = [
        Planner(tiny(chain, "stage=velvq", *hardware)).plan()
        for hardware in ((), ("hardware=ddp_cpu",), ("hardware=gpu",), ("hardware.precision=bf16-mixed",))
    ]
    assert len({node.fingerprint for node in nodes}) == 1
    assert all(resolve_hardware(trainer_arguments(node.cfg, "velvq")).processes == 1 for node in nodes)


@pytest.mark.slow  # two processes; tests/pipeline/test_started_processes.py has what they are told and leave
def test_two_processes_train_base_and_leave_one_set_of_files(chain: Path) -> None:
    places = (f"paths.artifacts={chain}/artifacts", f"paths.work={chain}/work")
    done = run_cli(chain, *TINY, *places, "stage=base", "hardware=ddp_cpu", "seed=3")
    assert done.returncode == 0, done.stderr
    metrics_path = Path(done.stdout.strip().splitlines()[-1])
    metrics = json.loads((chain / metrics_path).read_text())
    assert metrics["val/loss"] > 0
    assert len(list((chain / "outputs").rglob("metrics.csv"))) == 1
    assert sorted(p.name for p in Path(metrics["artifact"]).iterdir()) == sorted(
        p.name for p in artifact_of_chain(chain, "base").iterdir()
    )


def artifact_of_chain(root: Path, stage: str) -> Path:
    """What the chain itself made, also where tests have added artifacts of that stage."""
    return root / "artifacts" / stage / Planner(tiny(root)).node(stage).fingerprint


@pytest.mark.slow  # half a minute: two jobs in processes of their own, each with a W&B run
def test_a_sweep_shares_what_its_jobs_share_and_each_has_its_own_wandb_run(chain: Path) -> None:
    places = (
        f"paths.artifacts={chain}/artifacts",
        f"paths.work={chain}/work",
        f"paths.outputs={chain}/sweep",
    )
    settings = [s for s in TINY if s not in ("logger=csv", "velvq.codebook_size=32")]
    cells_before = sorted(p.name for p in (chain / "artifacts" / "prepare").iterdir())
    done = run_cli(chain, "-m", *settings, *places, "stage=velvq", "velvq.codebook_size=16,24")
    assert done.returncode == 0, done.stderr
    runs = {p.name.rsplit("-", 1)[-1] for p in (chain / "sweep").rglob("offline-run-*") if p.is_dir()}
    assert len(runs) == 2
    results = [json.loads(p.read_text()) for p in sorted((chain / "sweep").rglob("metrics.json"))]
    assert len({r["artifact"] for r in results}) == 2
    assert sorted(p.name for p in (chain / "artifacts" / "prepare").iterdir()) == cells_before
