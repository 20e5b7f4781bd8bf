"""Artifacts are complete or absent, and what was changed afterwards is not reused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pianolm.artifacts import RECORD, ArtifactStore, licences_of, problem_of, read_record, write_record
from pianolm.errors import UserError
from pianolm.pipeline.graph import Planner
from pianolm.run import execute
from tests.test_chain import only
from tests.tiny import tiny


def publish(store: ArtifactStore, text: str = "text", name: str = "abc") -> Path:
    with store.publish("prepare", name) as out:
        (out / "folder").mkdir()
        (out / "folder" / "a.txt").write_text(text)
        write_record(out, {"fingerprint": name})
    return store.path("prepare", name)


def remove_a_file(path: Path) -> None:
    (path / "folder" / "a.txt").unlink()


def shorten_a_file(path: Path) -> None:
    (path / "folder" / "a.txt").write_text("t")


def change_a_file(path: Path) -> None:
    (path / "folder" / "a.txt").write_text("tixt")


def remove_the_record(path: Path) -> None:
    (path / RECORD).unlink()


def spoil_the_record(path: Path) -> None:
    (path / RECORD).write_text("{")


def record_without_files(path: Path) -> None:
    (path / RECORD).write_text("{}")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove_a_file, "folder/a.txt is missing"),
        (shorten_a_file, "folder/a.txt has 1 bytes, 4 were published"),
        (remove_the_record, "artifact.json is missing"),
        (spoil_the_record, "artifact.json is not readable"),
        (record_without_files, "artifact.json does not list its files"),
    ],
)
def test_a_damaged_artifact_is_set_aside(damage: Any, says: str, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    path = publish(store)
    assert store.find("prepare", "abc") == path
    damage(path)
    assert problem_of(path) == says
    assert store.find("prepare", "abc") is None
    sentence = store.recover("prepare", "abc")
    assert sentence is not None
    assert says in sentence
    (aside,) = tmp_path.glob("prepare/abc.damaged-*")
    assert aside.name in sentence
    assert not path.exists()


def test_other_contents_of_the_same_size_are_found_by_their_hash(tmp_path: Path) -> None:
    path = publish(ArtifactStore(tmp_path))
    change_a_file(path)
    assert ArtifactStore(tmp_path).find("prepare", "abc") == path
    assert ArtifactStore(tmp_path, verify=True).find("prepare", "abc") is None
    assert problem_of(path, hashes=True) == "folder/a.txt has other contents than were published"


def test_licences_are_unknown_where_an_artifact_does_not_say(tmp_path: Path) -> None:
    path = publish(ArtifactStore(tmp_path))
    assert licences_of(path) == licences_of(path / "folder" / "a.txt") == licences_of(tmp_path) == ["unknown"]
    write_record(path, {"licences": ["CC0-1.0", "MIT"]})
    assert licences_of(path) == ["CC0-1.0", "MIT"]


def test_a_kill_between_the_two_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(tmp_path)
    path = publish(store, "old!")
    rename, renames = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        renames.append(target)
        if len(renames) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(store, "new!")
    assert not path.exists()
    assert store.recover("prepare", "abc") is None
    assert (path / "folder" / "a.txt").read_text() == "old!"
    assert store.find("prepare", "abc") == path


@pytest.fixture
def copied(chain: Path, tmp_path: Path) -> Path:
    """A copy of the chain's directory."""
    shutil.copytree(chain, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def test_a_damaged_artifact_is_built_again_and_that_is_said(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codebook = only(copied, "codebook")
    (codebook / "codebook.npz").unlink()
    metrics = execute(tiny(copied, "stage=codebook"), copied / "again")
    assert metrics["artifact"] == str(codebook)
    assert "codebook.npz is missing; set aside as" in capsys.readouterr().out
    assert problem_of(codebook, hashes=True) is None


def test_a_given_artifact_that_is_damaged_is_refused(copied: Path) -> None:
    cells = only(copied, "prepare")
    next(cells.glob("*.npy")).unlink()
    with pytest.raises(
        UserError, match=r"upstream\.cells=.*is missing; give an artifact as it was published"
    ):
        Planner(tiny(copied, "stage=codebook", f"upstream.cells={cells}")).plan()


@pytest.mark.parametrize(
    ("stage", "role", "says"),
    [
        ("base", "base", "stage=base does not use it here; it uses upstream.cells, upstream.codebook"),
        ("codebook", "velvq", "it uses upstream.cells"),
        ("prepare", "cells", "it uses none"),
    ],
)
def test_an_upstream_that_no_stage_of_the_plan_uses_is_refused(
    stage: str, role: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        Planner(tiny(tmp_path, f"stage={stage}", f"upstream.{role}={tmp_path}")).plan()


def test_extending_finetune_keeps_the_base_that_it_had(chain: Path) -> None:
    finetune = only(chain, "finetune")
    cfg = tiny(chain, "stage=finetune", "trainer.max_steps=9", f"resume={finetune}")
    node = Planner(cfg).plan()
    record = read_record(finetune)
    assert record is not None
    assert {role: needed.fingerprint for role, needed in node.upstream.items()} == record["upstream"]
    assert node.fingerprint != finetune.name


def test_the_stage_lists_verifies_and_prunes(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Used is what runs name whose directory exists: here that of the fixture's run."""
    used = {path.name for path in ArtifactStore(copied / "artifacts").all()}
    publish(ArtifactStore(copied / "artifacts"), name="0123456789abcdef")
    change_a_file(copied / "artifacts" / "prepare" / "0123456789abcdef")
    assert execute(tiny(copied, "stage=artifacts", "artifacts.prune=true", "plan=true"), copied / "p") == {}
    planned = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in planned if line.startswith("remove")] == ["0123456789abcdef"]
    assert {line.split()[2] for line in planned if line.startswith("used")} == used
    found = execute(tiny(copied, "stage=artifacts", "artifacts.verify=true"), copied / "v")
    assert (found["artifacts"], found["damaged"], found["removed"]) == (len(used) + 1, 1, 0)
    found = execute(tiny(copied, "stage=artifacts", "artifacts.prune=true"), copied / "r")
    assert found["removed"] == 1
    assert {path.name for path in ArtifactStore(copied / "artifacts").all()} == used
    assert json.loads((copied / "r" / "metrics.json").read_text())["removed"] == 1
