"""`evaluate=samples`: the whole stage on the tiny chain, and its comparisons of pieces made by hand."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pianolm import Piece
from pianolm.data.cell_store import CellStore
from pianolm.errors import UserError
from pianolm.evaluation.copied_notes import NoteRuns
from pianolm.evaluation.distributions import FEATURES
from pianolm.evaluation.excerpts import cut, opening, within
from pianolm.evaluation.music_statistics import STATISTICS, key_of
from pianolm.evaluation.samples import Excerpt, compare, measured, with_copies
from pianolm.evaluation.samples_report import Pair, table
from pianolm.lm.sampling_file import write_sampling
from pianolm.run import execute
from tests.evaluation.test_dynamics import human, sonata, store_of
from tests.evaluation.toys import cell_store, model_directory
from tests.tiny import tiny

PROMPT, NEW = 4, 8


def evaluated(root: Path, run_dir: Path, *overrides: str) -> dict[str, Any]:
    settings = (
        "stage=evaluate",
        "evaluate=samples",
        f"evaluate.prompt_beats={PROMPT}",
        f"evaluate.new_beats={NEW}",
    )
    return execute(tiny(root, *settings, "generate.audio=false", *overrides), run_dir)


@pytest.fixture
def metrics_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the time that pictures and MIDI take."""
    monkeypatch.setattr("pianolm.evaluation.samples.write", lambda *_: None)


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "pieces.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_chain_is_measured_with_tables_pictures_and_midi(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = evaluated(chain, tmp_path, "evaluate.split=all", "evaluate.pieces=3")
    printed = capsys.readouterr().out
    assert (metrics["pieces"], metrics["pieces_left_out"]) == (3, 0)
    assert "pieces: the training pieces of the model's own cells" in metrics["copied_from"]
    both = [name for one in (*STATISTICS, "longest_copy_notes") for name in (one, f"human_{one}")]
    both += [name for one in FEATURES for name in (f"js_{one}", f"js_{one}_human")]
    assert all(np.isfinite(metrics[name]) for name in both)
    assert all(0 <= metrics[name] <= 1 for name in both if name.startswith("js_"))
    assert 0 < metrics["human_bar_likeness"] <= 1
    rows = rows_of(tmp_path)
    assert [row["side"] for row in rows] == ["model", "human"] * 3
    assert len({row["id"] for row in rows}) == 3
    for name in ("bar_likeness", "in_key", "longest_copy_notes"):
        values = [float(row[name]) for row in rows if row["side"] == "human"]
        assert metrics[f"human_{name}"] == pytest.approx(np.mean(values), abs=1e-4)
    for model, rest in zip(rows[::2], rows[1::2], strict=True):
        pieces = [Piece.from_midi(tmp_path / row["midi"], beats="tempo_map") for row in (model, rest)]
        prompts = [within(piece.frame_notes, 0, PROMPT) for piece in pieces]
        assert np.array_equal(prompts[0][["onset", "pitch"]], prompts[1][["onset", "pitch"]])
        assert pieces[1].n_beats == PROMPT + NEW
        assert int(model["new_beats"]) <= NEW == int(rest["new_beats"])
    text = (tmp_path / "samples.md").read_text()
    assert text.split("\n\n![")[0] in printed
    assert f"| bar likeness | {metrics['bar_likeness']:.2f} |" in text
    for picture in ("distributions.png", "rolls.png"):
        assert picture in text
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert "halves of the human" in (tmp_path / "index.html").read_text()
    again = json.loads((tmp_path / "metrics.json").read_text())
    assert again["js_pitch_class"] == metrics["js_pitch_class"]


@pytest.mark.usefixtures("metrics_alone")
def test_sampling_options_and_the_seed_change_the_model_alone(chain: Path, tmp_path: Path) -> None:
    made = json.loads((chain / "run/metrics.json").read_text())["upstream"]["model"]
    model = f"upstream.model={chain}/artifacts/finetune/{made}"
    common = ("evaluate.split=train", "evaluate.pieces=2", "generate.page=false", model)
    first = evaluated(chain, tmp_path / "a", *common)
    again = evaluated(chain, tmp_path / "b", *common)
    assert {**again, "seconds": 0, "artifact": ""} == {**first, "seconds": 0, "artifact": ""}
    others = [
        evaluated(chain, tmp_path / "c", *common, "seed=1"),
        evaluated(
            chain,
            tmp_path / "d",
            *common,
            "generate.by_kind.pitch.temperature=0.1",
            "generate.tempo_bpm=100",
        ),
    ]
    for other in others:
        assert other["human_bar_likeness"] == first["human_bar_likeness"]
        assert other["js_note_length"] != first["js_note_length"]
    assert others[1]["tempo_sd_bpm"] == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("metrics_alone")
def test_a_model_is_sampled_as_it_says_itself_unless_options_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = cell_store(tmp_path / "cells")
    plain, own = (model_directory(tmp_path / name, velocity=True) for name in ("plain", "own"))
    write_sampling(own, {"temperature": 3.0, "repeat": 1.0})

    sampling: dict[str, str] = {}

    def distances(name: str, model: Path, *overrides: str) -> dict[str, float]:
        given = (f"upstream.model={model}", f"upstream.cells={store}", "generate.page=false")
        metrics = evaluated(tmp_path, tmp_path / name, *given, *overrides)
        sampling[name] = str(metrics["sampling"])
        return {key: value for key, value in metrics.items() if key.startswith("js_")}

    as_model = distances("a", own)
    assert "evaluate: samples as the model suggests; " in capsys.readouterr().out
    assert as_model == distances("b", plain, "generate.temperature=3", "generate.repeat=1")
    assert distances("c", own, "generate=plain") == distances("d", plain) != as_model
    assert "samples as" not in capsys.readouterr().out
    assert sampling == {"a": "temperature=3 repeat=1", "b": "temperature=3 repeat=1", "c": "", "d": ""}
    evaluated(tmp_path, tmp_path / "e", f"upstream.model={own}", f"upstream.cells={store}", "plan=true")
    assert "evaluate: samples with temperature=3 repeat=1, as " in capsys.readouterr().out


def test_a_base_model_without_its_cells_leaves_out_copies_and_velocities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On pieces without bars."""
    model = model_directory(tmp_path / "model", velocity=False)
    store = cell_store(tmp_path / "cells", flat=(False,) * 3)
    given = (f"upstream.model={model}", f"upstream.cells={store}")
    metrics = evaluated(tmp_path, tmp_path / "run", *given, "generate.page=false")
    printed = capsys.readouterr().out
    assert "longest_copy_notes" not in metrics
    assert "leaves out longest_copy_notes: no music that" in printed
    assert "copied_from" not in metrics
    assert "js_velocity" not in metrics
    assert "leaves out js_velocity: the model's tokens have no velocities" in printed
    assert "3 pieces have no bars: counts bars of 4 beats from their first note on" in printed
    assert "longest run" not in (tmp_path / "run/samples.md").read_text()
    assert not (tmp_path / "run/index.html").exists()
    assert "longest_copy_notes" not in rows_of(tmp_path / "run")[0]


@pytest.mark.usefixtures("metrics_alone")
def test_pieces_that_are_too_short_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_directory(tmp_path / "model", velocity=True)
    humans = sonata(human(0, 60), human(1, 90), cut(human(2, 90), 0, 10))
    store_of(tmp_path / "cells", humans)
    given = (f"upstream.model={model}", f"upstream.cells={tmp_path}/cells", "evaluate.new_beats=10")
    metrics = evaluated(tmp_path, tmp_path / "run", *given, "generate.page=false")
    assert (metrics["pieces"], metrics["pieces_left_out"]) == (2, 1)
    assert "leaves out 1 of 3 pieces, which do not fill 14 beats" in capsys.readouterr().out
    with pytest.raises(UserError, match="none of 3 pieces has music in 50 beats from its first bar on"):
        evaluated(tmp_path, tmp_path / "run", *given, "evaluate.new_beats=46")


@pytest.mark.usefixtures("metrics_alone")
def test_scores_are_continued_where_a_split_has_nothing_else(tmp_path: Path) -> None:
    model = model_directory(tmp_path / "model", velocity=True)
    store = cell_store(tmp_path / "cells", flat=(True, True), kind="score")
    given = (f"upstream.model={model}", f"upstream.cells={store}", "generate.page=false")
    metrics = evaluated(tmp_path, tmp_path / "run", *given)
    assert metrics["pieces"] == 2
    assert "js_velocity" not in metrics, "flat velocities say nothing"
    with pytest.raises(UserError, match="split=test: data=demo has no performance"):
        evaluated(tmp_path, tmp_path / "run", *given, "evaluate.split=test")


def pairs_of(tmp_path: Path, count: int, model_is_human: bool) -> list[Pair]:
    humans = sonata(*(human(seed, 60 + seed) for seed in range(2 * count)))
    store = CellStore.open(store_of(tmp_path / "cells", humans).directory)
    pairs = []
    for index in range(count):
        rest, other = (opening(humans[number][1], 9) for number in (index, index + count))
        assert rest is not None
        assert other is not None
        excerpt = Excerpt(store.pieces[index], rest, key_of(within(rest.frame_notes, 0, 4)), 4)
        pairs.append(measured(excerpt, rest if model_is_human else other, 4, 5))
    return pairs


def test_a_model_that_plays_the_human_rest_is_at_distance_0(tmp_path: Path) -> None:
    lines = {line.name: line for line in compare(pairs_of(tmp_path, 4, True), True, 0)}
    for name, line in lines.items():
        if line.is_distance:
            assert line.model == (0, 0, 0), name
            assert line.human is not None
        else:
            assert line.model == line.human, name
    assert [*lines][: len(STATISTICS)] == list(STATISTICS)


def test_what_is_unknown_of_one_piece_is_left_out_of_its_mean(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, 3, False)
    silent = replace(pairs[0].model, statistics={**pairs[0].model.statistics, "in_key": float("nan")})
    line = next(
        one for one in compare([replace(pairs[0], model=silent), *pairs[1:]], True, 0) if one.name == "in_key"
    )
    expected = np.mean([pair.model.statistics["in_key"] for pair in pairs[1:]])
    assert line.model is not None
    assert line.model.value == pytest.approx(expected)
    every = [replace(pair, model=silent) for pair in pairs]
    line = next(one for one in compare(every, True, 0) if one.name == "in_key")
    assert list(line.named()) == ["human_in_key"]
    assert any(row.startswith("| in key, % | – | – |") for row in table([line]))


def test_copies_are_counted_in_the_new_beats_of_both_sides(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, 2, False)
    training = NoteRuns.of([pairs[1].human.piece.frame_notes])
    found = with_copies(pairs, training, 4)
    new = within(pairs[1].human.piece.frame_notes, 4, 9)
    assert found[1].human.statistics["longest_copy_notes"] == new.size
    assert found[1].model.statistics["longest_copy_notes"] < new.size
    assert found[0].human.piece is pairs[0].human.piece


@pytest.mark.parametrize(
    ("measure", "asked", "refused"),
    [
        (
            "samples",
            "tokenizer.mode=base generate.loudness=3",
            r"^generate\.loudness=3 found with tokenizer\.mode",
        ),
        (
            "fill",
            "generate.density=3 upstream.model=.",
            r"density=3 found with evaluate=fill, which knows no such",
        ),
        ("fill", "generate.top_k=3", r"^evaluate=fill found, .*: finetune\.loader\.fill_share=0; add"),
    ],
)
def test_what_a_chain_would_not_learn_is_refused_before_it_trains(
    measure: str, asked: str, refused: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=refused):
        execute(tiny(tmp_path, "stage=evaluate", f"evaluate={measure}", *asked.split()), tmp_path / "run")
    assert not (tmp_path / "artifacts").exists()
