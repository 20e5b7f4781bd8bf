"""Runs of W&B of a whole chain: job types, what was published, lineage, and things to see and hear."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from pianolm.artifacts import write_record
from pianolm.run import execute
from pianolm.stage import StageContext
from pianolm.training import tracking
from pianolm.training.tracking import log_result, tracked
from tests.tiny import tiny


def records(run_file: Path) -> list[Any]:
    """All records of an offline run, a log in LevelDB's format: blocks of 32 KiB, records cut where a block ends."""
    data, at, parts, found = run_file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, part = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def summary(found: list[Any]) -> dict[str, Any]:
    return {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for record in found
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Records of the runs of a chain that ends in `generate`, by job type."""
    root = tmp_path_factory.mktemp("tracked")
    cfg = tiny(root, "stage=generate", "logger=wandb", "generate.pieces=1", "generate.beats=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        execute(cfg, root / "run")
    assert wandb.run is None
    wandb.teardown()  # until then its process may still write
    by_type: dict[str, list[Any]] = {}
    for path in (root / "run").rglob("*.wandb"):
        found = records(path)
        (run,) = {record.run.job_type for record in found if record.WhichOneof("record_type") == "run"}
        by_type.setdefault(run, []).extend(found)  # tokenize runs once without velocities and once with them
    return by_type


def test_every_stage_has_a_run_of_its_own(runs: dict[str, list[Any]]) -> None:
    assert set(runs) == {"prepare", "codebook", "velvq", "tokenize", "base", "finetune", "generate"}


def test_the_summary_has_what_was_published(runs: dict[str, list[Any]]) -> None:
    assert summary(runs["tokenize"])["tokens_per_note"] > 1
    assert summary(runs["finetune"])["parameters"] > 1000
    assert summary(runs["generate"])["valid_fraction"] == 1


def test_what_is_published_is_an_artifact_with_its_lineage(runs: dict[str, list[Any]]) -> None:
    for stage in set(runs) - {"generate"}:
        published = [r.artifact for r in runs[stage] if r.artifact.type == stage]
        assert len(published) == (2 if stage == "tokenize" else 1)
        for made in published:
            known = json.loads(made.metadata)
            assert made.name == f"{stage}-{known['fingerprint']}"
            assert known["upstream"] or stage == "prepare"
            assert {entry.path for entry in made.manifest.contents} == {"artifact.json", "config.yaml"}


def test_inputs_are_used_where_a_server_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal artifacts are one version, so that what one stage made is what the next one used."""
    for name in ("cells", "model"):
        (tmp_path / name).mkdir()
    write_record(
        tmp_path / "cells", {"stage": "prepare", "fingerprint": "0123", "upstream": {}, "metrics": {}}
    )
    run = MagicMock(offline=False)
    monkeypatch.setattr(wandb, "run", run)
    upstream = {"cells": tmp_path / "cells", "model": tmp_path / "model"}
    ctx = StageContext({"logger": {}}, upstream, tmp_path, tmp_path, tmp_path, "evaluate")
    log_result(ctx, tmp_path, {"bits_per_note": 12.5}, publishes=False)
    used = [call.args[0] for call in run.use_artifact.call_args_list]
    assert [(one.name, one.type) for one in used] == [("prepare-0123", "prepare"), ("model", "given")]
    made = tracking._artifact(tmp_path / "cells")
    assert made.digest == used[0].digest
    run.summary.update.assert_called_once_with({"bits_per_note": 12.5})
    assert not run.log_artifact.called


def test_tables_are_sent_as_tables(tmp_path: Path) -> None:
    (tmp_path / "pieces.csv").write_text("piece,notes\na,12\nb,13\n")
    ((name, table),) = tracking._media(tmp_path)
    assert name == "tables/pieces"
    assert table.columns == ["piece", "notes"]
    assert table.data == [["a", "12"], ["b", "13"]]


def test_a_stage_without_training_has_no_run_where_wandb_is_not_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(tracking, "has_key", lambda: False)
    cfg = {"logger": {"wandb": {"_target_": tracking._LOGGER, "project": "x"}}}
    with tracked(StageContext(cfg, {}, tmp_path, tmp_path, tmp_path, "generate"), trains=False):
        assert wandb.run is None
    assert not list(tmp_path.iterdir())


def test_generated_pieces_are_heard_and_seen(runs: dict[str, list[Any]]) -> None:
    keys = set(summary(runs["generate"]))
    assert {"audio/piece_00", "pictures/piece_00", "pages/index"} <= {key.split("._type")[0] for key in keys}
