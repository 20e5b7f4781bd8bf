"""The pure parts of experiments/tokenizer-comparison: rows of tokens, what is left out, resuming, best rates."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from experiments.results import RESULTS, read_rows
from pianolm import Piece
from pianolm.data.cell_store import CellStoreWriter, PieceRow
from pianolm.lm.loss import IGNORE
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FRAME_NOTE_DTYPE, frames_to_cells
from pianolm.tokenizer.token_mask import unpack_masks
from pianolm.tokenizer.vocabulary import Kind
from tests import experiment
from tests.toy_lm import GOLDEN, toy_llama, toy_tokenizer

FOLDER = "tokenizer-comparison"


def load(name: str) -> ModuleType:
    return experiment.load(f"{FOLDER}/{name}.py")


def frame_notes(*notes: tuple[int, int, int, int]) -> np.ndarray:
    return np.array(list(notes), FRAME_NOTE_DTYPE)


def test_an_epoch_shows_every_target_once_in_rows_of_one_length() -> None:
    batches, tokens = load("corpus").batches, SimpleNamespace(given=lambda ids: ids % 7 == 3)
    pieces = [np.arange(100, 141), np.arange(200, 260)]  # 101 tokens: 12 rows of 8 and a rest
    drawn = batches(pieces, tokens, 8, 5, seed=3)
    epoch = [next(drawn) for _ in range(3)]
    assert [inputs.shape for inputs, _ in epoch] == [(5, 8), (5, 8), (2, 8)]
    labels = np.concatenate([labels.ravel() for _, labels in epoch])
    learned = labels[labels != IGNORE]
    assert np.unique(learned).size == learned.size
    assert 96 - 15 <= learned.size <= 96 - 13, "one of seven tokens is given, and not learned"
    for inputs, following in epoch:
        expected = np.where(inputs[:, 1:] % 7 == 3, IGNORE, inputs[:, 1:])
        assert np.array_equal(expected, following[:, :-1])
    again, later = next(batches(pieces, tokens, 8, 5, seed=3)), next(drawn)
    assert np.array_equal(again[0], epoch[0][0])
    assert not np.array_equal(later[0], epoch[0][0])


def test_a_work_in_training_and_validation_is_refused(tmp_path: Path) -> None:
    module = load("corpus")
    piece = Piece.from_midi(GOLDEN / "piece.mid")
    downbeat = np.zeros(piece.n_beats + 1, np.int8)

    def store(work: str) -> Path:
        directory = tmp_path / work
        with CellStoreWriter(directory) as writer:
            for split, composition in (("train", "a"), ("validation", work)):
                row = PieceRow(
                    id=split,
                    source="toy",
                    composition=composition,
                    split=split,
                    kind="performance",
                    flat=False,
                    licence="",
                    path="",
                    notes=piece.cells.struck_notes,
                    cells=len(piece.cells),
                    beats=piece.n_beats,
                    segments=piece.cells.segment_velocity.size,
                )
                writer.add(row, piece.cells, piece.beats_sec, downbeat)
        return directory

    corpus = module.Corpus.choose(store("b"), 10, 10, 10, tmp_path)
    assert corpus.works(corpus.train) == {"a"}
    assert corpus.works(corpus.validation) == {"b"}
    with pytest.raises(SystemExit, match="in training and validation: a;"):
        module.Corpus.choose(store("a"), 10, 10, 10, tmp_path)


def test_what_is_left_out_is_found_note_by_note() -> None:
    module = load("representations")
    given = module.Performance(
        "piece",
        frames_to_cells(
            frame_notes((0, 10, 60, 70), (20, 30, 60, 70), (60, 100, 60, 72), (0, 400, 62, 71)), 9
        ),
        np.arange(10) * 0.5,
    )
    decoded = frame_notes((0, 10, 60, 70), (0, 396, 62, 75))
    found = module.left_out(given, decoded, with_velocity=True)
    assert found["lost"].tolist() == [2]
    assert found["notes"].tolist() == [1, 1]
    assert found["onset"].tolist() == [0, 0]
    assert found["end"].tolist() == [0, 4]
    assert found["velocity"].tolist() == [0, -4]
    assert found["long"].tolist() == [0, 2]
    assert found["crowd"].tolist() == [1, 1]
    assert not module.left_out(given, decoded, with_velocity=False)["velocity"].any()


def test_notes_that_became_one_are_counted_and_their_onsets_compared() -> None:
    module, scoring = load("representations"), load("scoring")
    notes = frame_notes((0, 4, 60, 70), (5, 20, 60, 74), (30, 40, 60, 70), (0, 40, 62, 71))
    given = module.Performance("piece", frames_to_cells(notes, 1), np.arange(2) * 0.5)
    decoded = frame_notes((0, 24, 60, 72), (36, 48, 60, 70), (0, 36, 62, 71))
    found = module.left_out(given, decoded, with_velocity=True)
    assert found["lost"].tolist() == [0]
    assert found["notes"].tolist() == [2, 1, 1]
    assert found["onset"].tolist() == [0, 5, -6, 0]
    assert found["crowd"].tolist() == [2, 2, 2, 1]
    summed = scoring.what_is_left_out(found)
    assert summed["merged_notes"] == 1
    assert summed["onsets_inexact"] == 0.5
    counts = 3 * (np.log2(3) / 3 + 2 / 3 * np.log2(3 / 2)) / 4
    assert summed["onsets_worth"] == pytest.approx(1.5 + counts)
    nothing = module.left_out(given, decoded[:0], with_velocity=True)
    assert (nothing["lost"].tolist(), nothing["onset"].size) == ([4], 0)


def test_errors_are_worth_their_entropy_in_their_class() -> None:
    worth = load("representations").worth
    assert worth(np.zeros(8, int), np.arange(8)) == 0
    assert worth(np.array([0, 1, 2, 3]), np.zeros(4, int)) == pytest.approx(2)
    assert worth(np.array([0, 0, 1, -1]), np.array([0, 0, 1, 1])) == pytest.approx(0.5)
    assert worth(np.zeros(0, int), np.zeros(0, int)) == 0


def test_tempo_bits_are_split_into_that_one_comes_and_which() -> None:
    tokens = SimpleNamespace(types=("Pitch", "Tempo"), type_V=np.isin(np.arange(10), (4, 5, 6)).astype(int))
    masks = load("scoring").tempo_masks(tokens, np.array([0, 4, 9, 5, 9]))
    allowed = unpack_masks(masks.packed, 10)[masks.row]
    assert [np.flatnonzero(ids).tolist() for ids in allowed] == [[0], [4, 5, 6], [9], [4, 5, 6], [9]]


@pytest.mark.parametrize("constrained", [False, True])
def test_training_counts_notes_for_its_schedule_its_scores_and_its_end(
    constrained: bool, tmp_path: Path
) -> None:
    training, module = load("training"), load("representations")
    toy_tokenizer().save_pretrained(tmp_path)
    tokens = module.PianoTokens(tmp_path, "velocity")
    piece = Piece.from_midi(GOLDEN / "piece.mid")
    ids = tokens.encode(module.Performance("piece", piece.cells, piece.beats_sec, piece.bar_starts))
    model = toy_llama(tokens.tokenizer.vocabulary).train()
    scored: list[int] = []
    learning = "adamw", 1e-3, 0.1
    notes_module = training.NotesModule(model, tokens, *learning, notes=200, constrained=constrained)
    curve = training.Curve(200, 2, scored.append)
    trained = training.train(notes_module, [ids], 32, 2, 0, curve, "cpu", "32")
    assert len(scored) == 2
    assert 100 <= scored[0] < 200 <= scored[1] == trained.notes < 300
    assert trained.seconds > 0
    drawn = load("corpus").batches([ids], tokens, 32, 2, 0)
    assert trained.notes == sum(int(tokens.notes_V[next(drawn)[1]].sum()) for _ in range(trained.steps))
    rate = notes_module.optimizers().param_groups[0]["lr"]
    assert rate == pytest.approx(1e-4), "a tenth of the peak after all notes"


@pytest.mark.parametrize(("optimizer", "rates"), [("adamw", [1e-3, 1e-3]), ("muon", [1e-3, 1e-4, 1e-4])])
def test_both_optimizers_follow_the_schedule_of_notes(
    optimizer: str, rates: list[float], tmp_path: Path
) -> None:
    training, module = load("training"), load("representations")
    toy_tokenizer().save_pretrained(tmp_path)
    tokens = module.PianoTokens(tmp_path, "velocity")
    model = toy_llama(tokens.tokenizer.vocabulary, tie_word_embeddings=False)
    notes_module = training.NotesModule(model, tokens, optimizer, 1e-3, 0.1, notes=200, constrained=False)
    configured = notes_module.configure_optimizers()
    made, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert schedule.base_lrs == pytest.approx(rates)
    notes_module.notes_seen = 200
    made.step()
    schedule.step()
    assert [group["lr"] for group in made.param_groups] == pytest.approx([rate / 10 for rate in rates])


def toy_row(job: dict[str, Any], bits: float, tempo: float = 0.0, **by_type: float) -> dict[str, Any]:
    constrained = {"bits_per_note": bits - 0.5, "tempo": tempo, "by_type": by_type}
    exact = {
        f"{name}_{what}": 0.0 for name in ("onsets", "ends", "velocities") for what in ("inexact", "worth")
    }
    return {"job": job, "bits_per_note": bits, "constrained": constrained, "left_out": exact}


def test_bits_are_compared_without_tempo_and_bars_and_with_what_is_left_out() -> None:
    report = load("report")
    row = toy_row({"options": ""}, 17.5, 0.5, bar=0.25, Bar=0.125)
    assert report.left_out(row) == "–"
    assert report.bits_of(row, "comparable") == 16.25
    row["left_out"] |= {"onsets_inexact": 0.625, "onsets_worth": 3.0, "ends_inexact": 0.25, "ends_worth": 0.5}
    assert report.left_out(row) == "onsets of 62.5 %: 3.00, ends of 25.0 %: 0.50"
    assert report.bits_of(row, "comparable") == 19.75


def test_ratios_compare_like_with_like() -> None:
    compare, report = load("compare"), load("report")

    def job(tokens: str, embedding: str = "table", options: str = "", seed: int = 0) -> dict[str, Any]:
        made = compare.Job("asap", "velocity", tokens, embedding, options, "adamw", 1e-3, seed, 500_000, "32")
        return compare.identity_of(made, "trial", compare.PLANS["trial"])

    rows = [toy_row(job("tsd"), 10.5), toy_row(job("pianolm"), 24.5, 1.0)]
    rows.append(toy_row(job("pianolm", options="ties=implicit"), 16.5, 1.0))
    rows += [
        toy_row(job("pianolm", "codebook", "ties=implicit", seed), bits, 1.0)
        for seed, bits in ((0, 8.0), (1, 9.0))
    ]
    measures = ("bits_per_note", "grammar_bits_per_note", "comparable_bits_per_note")
    key = "codebook_ties=implicit_over_tsd"
    found = report.headlines(rows)
    assert set(found) == {
        f"{measure}_codebook_ties=implicit_over_{other}" for measure in measures for other in ("table", "tsd")
    }
    rows.append(toy_row(job("tsd", options="constrained"), 9.5))  # its bits among all ids do not count
    rows.append(toy_row(job("pianolm", "codebook", "ties=implicit constrained"), 8.0, 1.0))
    found = report.headlines(rows)
    assert found["grammar_bits_per_note_codebook_ties=implicit_constrained_over_tsd"] == round(7.5 / 9, 4)
    assert "bits_per_note_codebook_ties=implicit_constrained_over_tsd" not in found
    assert "bits_per_note_codebook_over_tsd" not in found, (
        "the codebook embedding has no row with plain tokens"
    )
    assert found[f"bits_per_note_{key}"] == round(8.5 / 10.5, 4)
    assert found["bits_per_note_codebook_ties=implicit_over_table"] == round(8.5 / 16.5, 4)
    assert found[f"grammar_bits_per_note_{key}"] == round(8 / 9, 4)
    assert found[f"comparable_bits_per_note_{key}"] == round((8.0 - 1.0) / 9, 4)
    small = [toy_row({**row["job"], "plan": "small", "data": "demo"}, row["bits_per_note"]) for row in rows]
    assert f"bits_per_note_{key}/small_demo_500000" in report.headlines(small)


def test_options_given_several_times_are_of_pianolm_alone() -> None:
    compare = load("compare")
    command = "compare.py --data demo --sides tsd pianolm-codebook --notes 60000 --optimizer muon --options "
    command += "constrained --options ties=explicit bars=true constrained --options ties=implicit"
    with mock.patch("sys.argv", command.split()):
        arguments = compare.parse_arguments()
    jobs = compare.jobs_of(arguments, compare.PLANS["trial"])
    assert [job.options for job in jobs[:4]] == [
        "",
        "constrained",
        "bars=true ties=explicit constrained",
        "ties=implicit",
    ]
    assert [job.learning_rate for job in jobs[::4]] == pytest.approx([5e-3, 0.01, 0.02])
    arguments.constrained, arguments.options = True, None
    assert [job.options for job in compare.jobs_of(arguments, compare.PLANS["trial"])[:2]] == [
        "constrained"
    ] * 2


def test_a_job_with_a_row_is_not_trained_again(tmp_path: Path) -> None:
    compare = load("compare")
    plan = compare.PLANS["smoke"]
    job = compare.Job("demo", "velocity", "tsd", "table", "", "adamw", 1e-3, 0, plan.notes, "32")
    results, identity = compare.Results(tmp_path, tmp_path), compare.identity_of(job, "smoke", plan)
    assert not results.has(identity)
    results.add(toy_row(identity, 1.0))
    results.add(toy_row({**identity, "seed": 1}, 2.0))
    again = compare.Results(tmp_path, tmp_path)
    assert again.has(identity)
    assert not again.has({**identity, "learning_rate": 2e-3})
    assert not again.has({**identity, "optimizer": "muon"})
    older = {**identity, "network": compare.NETWORK - 1}
    again.add(toy_row(older, 3.0))
    assert len(again.rows()) == 2, "rows of another network are not compared"
    assert len(read_rows(tmp_path / RESULTS)) == 3, "but kept"


def test_the_best_rate_of_an_optimizer_is_best_on_average_of_all_seeds() -> None:
    report = load("report")

    def row(optimizer: str, rate: float, seed: int, bits: float, precision: str = "32") -> dict[str, Any]:
        job = {"mode": "velocity", "tokens": "tsd", "embedding": "table", "options": ""}
        job |= {"optimizer": optimizer, "learning_rate": rate, "seed": seed, "precision": precision}
        return toy_row(job, bits)

    rows = [
        row("adamw", 1e-3, 0, 20.0),
        row("adamw", 1e-3, 1, 22.0),
        row("adamw", 2e-3, 0, 20.4),
        row("adamw", 2e-3, 1, 20.6),
        row("adamw", 4e-3, 0, 19.0),
        row("muon", 2e-3, 0, 20.4),
        row("muon", 2e-3, 1, 20.2),
    ]
    best = report.best_rows(rows[:5])["MidiTok TSD"]
    assert [(report.learning_of(r), r["job"]["seed"]) for r in best] == [
        ("AdamW 0.002", 0),
        ("AdamW 0.002", 1),
    ]
    best = report.best_rows(rows)["MidiTok TSD"]
    assert [(report.learning_of(r), r["job"]["seed"]) for r in best] == [("Muon 0.002", 0), ("Muon 0.002", 1)]
    assert (
        report.bits_by_learning(rows[2:6]) == "20.00 ± 1.27 AdamW 0.002, 18.50 AdamW 0.004, 19.90 Muon 0.002"
    )
    assert report.bits_by_learning([]) == "–"
    assert report.learning_of(row("adamw", 1e-3, 0, 20.0, "bf16")) == "AdamW 0.001 bf16"
    trained = toy_row({**rows[0]["job"], "options": "ties=implicit constrained"}, 30.0)
    assert (report.bits_of(trained), report.constrained_bits(trained)) == (0.0, 29.5)
    assert report.interval([20.0]) == report.interval([20.0, 20.0]) == "20.00"
    assert report.interval([0.0, 0.0]) == "–"
    assert report.interval([20.0, 21.0, 22.0]) == "21.00 ± 2.48"


@pytest.mark.parametrize("mode", ["velocity", "base"])
def test_bar_tokens_are_a_type_whose_bits_are_time(mode: str, tmp_path: Path) -> None:
    module = load("representations")
    toy_tokenizer(bars=True).save_pretrained(tmp_path / "bars")
    toy_tokenizer().save_pretrained(tmp_path / "plain")
    with_bars, plain = (module.PianoTokens(tmp_path / name, mode) for name in ("bars", "plain"))
    piece = Piece.from_midi(GOLDEN / "piece.mid")
    given = module.Performance("piece", piece.cells, piece.beats_sec, piece.bar_starts)
    ids = with_bars.encode(given)
    is_bar = with_bars.type_V[ids] == with_bars.types.index("bar")
    assert with_bars.group["bar"] == "time"
    assert is_bar.sum() == piece.n_beats
    assert np.array_equal(ids[~is_bar], plain.encode(given))
    assert with_bars.fingerprint != plain.fingerprint
    assert not with_bars.tied(ids)[is_bar].any()
    found = module.left_out(given, with_bars.decode(ids), mode == "velocity")
    assert found["lost"][0] == 0


def test_a_tempo_is_chosen_among_tempi_and_not_tunings(tmp_path: Path) -> None:
    module = load("representations")
    toy_tokenizer(tempo="log50_tuned").save_pretrained(tmp_path)
    tokens = module.PianoTokens(tmp_path, "velocity")
    piece = Piece.from_midi(GOLDEN / "piece.mid")
    ids = tokens.encode(module.Performance("piece", piece.cells, piece.beats_sec, piece.bar_starts))
    assert [tokens.types[kind] for kind in tokens.type_V[ids[1:3]]] == ["tuning", "tempo"]
    assert tokens.group["tuning"] == "tempo"
    masks = load("scoring").tempo_masks(tokens, ids)
    assert unpack_masks(masks.packed, tokens.type_V.size)[masks.row].sum(axis=1)[1:3].tolist() == [1, 50]


@pytest.mark.parametrize("bars", [False, True])
@pytest.mark.parametrize("mode", ["velocity", "base"])
def test_durations_and_pitches_of_explicit_ties_are_tied_tokens(
    mode: str, bars: bool, tmp_path: Path
) -> None:
    module = load("representations")
    for ties in ("implicit", "explicit"):
        toy_tokenizer(ties=ties, bars=bars).save_pretrained(tmp_path / ties)
    implicit, explicit = (module.PianoTokens(tmp_path / name, mode) for name in ("implicit", "explicit"))
    piece = Piece.from_midi(GOLDEN / "piece.mid")
    given = module.Performance("piece", piece.cells, piece.beats_sec, piece.bar_starts)
    ids, shorter = explicit.encode(given), implicit.encode(given)
    at = np.flatnonzero(explicit.type_V[ids] == explicit.types.index("duration"))
    assert at.size > 10
    head = np.concatenate([at, at + 1])
    assert np.array_equal(np.delete(ids, head), shorter)
    assert np.array_equal(np.delete(explicit.tied(ids), head), implicit.tied(shorter))
    tied_code = np.arange(ids.size)[at + 2]
    assert np.array_equal(explicit.tied(ids)[at], explicit.tied(ids)[tied_code])
    assert np.array_equal(explicit.tied(ids)[at + 1], explicit.tied(ids)[tied_code])
    masks = explicit.token_masks(ids)
    assert (unpack_masks(masks.packed[masks.row[head]], explicit.type_V.size).sum(axis=1) == 1).all()


@pytest.mark.parametrize("bars", [False, True])
@pytest.mark.parametrize("mode", ["velocity", "base"])
def test_tied_tokens_are_those_of_cells_in_which_nothing_is_struck(
    mode: str, bars: bool, tmp_path: Path
) -> None:
    module = load("representations")
    for ties in ("implicit", "repeat"):
        toy_tokenizer(ties=ties, bars=bars).save_pretrained(tmp_path / ties)
    implicit, repeat = (module.PianoTokens(tmp_path / name, mode) for name in ("implicit", "repeat"))
    piece = Piece.from_midi(GOLDEN / "piece.mid")
    given = module.Performance("piece", piece.cells, piece.beats_sec, piece.bar_starts)
    assert implicit.fingerprint != repeat.fingerprint
    ids, longer = implicit.encode(given), repeat.encode(given)
    held = implicit.tied(ids)
    in_cells = repeat.tied(longer)
    pitches = in_cells & (repeat.type_V[longer] == repeat.types.index("pitch"))
    held_codes = longer[in_cells & (repeat.type_V[longer] == repeat.types.index("pattern"))]
    assert (piece.cells.onset == 0).sum() >= pitches.sum() > 10
    if mode == "velocity":
        assert pitches.sum() == (piece.cells.onset == 0).sum()
    silent = implicit.tokenizer.grammar.silent[ids[held]]
    assert set(implicit.type_V[ids[held]]) == {implicit.types.index("pattern")}
    assert implicit.notes_V[ids[held]].sum() == 0
    assert implicit.notes_V[ids[~held]].sum() == implicit.notes_V[ids].sum()
    tied_codes = ids[held][~silent]
    assert sorted(tied_codes) == sorted(held_codes[~repeat.tokenizer.grammar.silent[held_codes]])
    found = module.left_out(given, implicit.decode(ids), mode == "velocity")
    assert found["lost"][0] == 0


@pytest.mark.parametrize("name", ["tsd", "remi", "pertok"])
@pytest.mark.parametrize("mode", ["velocity", "base"])
def test_miditok_is_given_every_note_at_its_frame(name: str, mode: str) -> None:
    pytest.importorskip("miditok", reason="MidiTok comes with the extra `bench`")
    module, miditok_tokens = load("representations"), load("miditok_tokens")
    rng = np.random.default_rng(0)
    onset = np.sort(rng.choice(48 * 40, 60, replace=False))
    pitch = np.repeat(np.arange(40, 60), 3)  # few enough a pitch that notes cannot collide
    rng.shuffle(pitch)
    columns = zip(onset, onset + rng.integers(1, 30, 60), pitch, rng.integers(1, 128, 60), strict=True)
    notes = np.sort(frame_notes(*columns), order=["pitch", "onset"])
    following = np.flatnonzero(notes["pitch"][1:] == notes["pitch"][:-1])
    notes["end"][following] = np.minimum(notes["end"][following], notes["onset"][following + 1])
    given = module.Performance("piece", frames_to_cells(notes, 42), np.arange(43) * 0.5)
    tokens = miditok_tokens.MidiTokTokens(name, mode)
    ids = tokens.encode(given)
    assert (ids[0], ids[-1]) == (tokens.bos, tokens.eos)
    assert tokens.notes_V[ids].sum() == 60
    found = module.left_out(given, tokens.decode(ids), mode == "velocity")
    assert found["lost"][0] == 0
    assert not found["velocity"].any()
    assert np.abs(found["end"]).max() <= (3 if name == "pertok" else 0)


@pytest.mark.parametrize("mode", ["velocity", "base"])
def test_beat_has_a_pattern_of_four_steps_for_each_beat_and_pitch(mode: str) -> None:
    """From the highest pitch, which is absolute, down in intervals; a note held over is a cell like any other."""
    pytest.importorskip("miditok", reason="MidiTok comes with the extra `bench`")
    notes = np.sort(
        frame_notes((0, 12, 60, 70), (13, 35, 60, 90), (5, 60, 72, 50), (40, 50, 48, 64)),
        order=["pitch", "onset"],
    )
    module = load("representations")
    given = module.Performance("piece", frames_to_cells(notes, 2), np.arange(3) * 0.5)
    tokens = load("miditok_tokens").MidiTokTokens("beat", mode)
    ids = tokens.encode(given)
    names = [list(tokens.tokenizer.vocab)[token] for token in ids]
    assert [name for name in names if not name.startswith("Velocity")] == [
        *("BOS_None", "Bar_None", "TimeSig_4/4", "Beat_None", "Program_0"),
        *("Pitch_72", "Pattern_53", "Pitch_12", "Pattern_42", "Pitch_12", "Pattern_1"),
        *("Beat_None", "Program_0", "Pitch_72", "Pattern_54", "EOS_None"),
    ]
    if mode == "velocity":
        of_first_beat = [name for name in names if name.startswith("Velocity")][:3]
        assert of_first_beat == ["Velocity_50", "Velocity_83", "Velocity_64"], "mean of the steps: 70, 90, 90"
    assert tokens.notes_V[ids].sum() == 4
    masks = tokens.token_masks(ids)
    allowed = unpack_masks(masks.packed, tokens.type_V.size)[masks.row]
    assert allowed[np.arange(1, ids.size), ids[1:]].all()
    eos = [names[place - 1].partition("_")[0] for place in range(1, ids.size) if allowed[place, tokens.eos]]
    assert not {"Pitch", *(("Pattern",) if mode == "velocity" else ())} & set(eos)
    found = module.left_out(given, tokens.decode(ids), mode == "velocity")
    assert found["lost"].tolist() == [0]
    assert np.abs(found["onset"]).max() == 5


REMINDED = ("tsd_reminded", "remi_reminded")


def reminded(name: str, *notes: tuple[int, int, int, int]) -> tuple[Any, Any, NDArray[np.int64]]:
    """The tokens, the performance, and its ids, for notes of onset, end, pitch and velocity."""
    pytest.importorskip("miditok", reason="MidiTok comes with the extra `bench`")
    sorted_notes = np.sort(frame_notes(*notes), order=["pitch", "onset"])
    n_beats = int(sorted_notes["end"].max()) // FRAMES + 1
    cells = frames_to_cells(sorted_notes, n_beats)
    given = load("representations").Performance("piece", cells, np.arange(n_beats + 1) * 0.5)
    tokens = load("miditok_tokens").MidiTokTokens(name, "velocity")
    return tokens, given, tokens.encode(given)


def random_notes(beats: int) -> list[tuple[int, int, int, int]]:
    """Notes of at most two beats, some of them tied over beat lines, one or more in every beat."""
    rng = np.random.default_rng(1)
    return [
        (start := 48 * beat + int(rng.integers(48)), start + int(rng.integers(1, 90)), 40 + pitch, 64)
        for beat in range(beats)
        for pitch in range(beat % 5 * 4, beat % 5 * 4 + 1 + beat % 3)
    ]


@pytest.mark.parametrize("name", REMINDED)
def test_a_new_beat_is_told_what_sounds_and_for_how_long(name: str) -> None:
    """A chord of which one note ends; a note that is struck again; a pause of a bar; a note that ends at the line."""
    notes = (0, 120, 60, 64), (0, 40, 64, 64), (60, 500, 67, 64), (90, 100, 60, 64), (130, 144, 72, 64)
    tokens, _, ids = reminded(name, *notes, (150, 160, 50, 64), (400, 410, 50, 64))
    names = [*tokens.tokenizer.vocab, *(f"Elapsed_{number}" for number in range(16))]
    at = np.flatnonzero(tokens.given(ids))
    runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
    found = [(names[ids[run[0] - 1]].partition("_")[0], [names[token] for token in ids[run]]) for run in runs]
    moves = "TimeShift" if name == "tsd_reminded" else "Position"
    # 48 frames are bin 7 of 16, 36 bin 6, 6 bin 1, 84 bin 10, 132 bin 12, 324 bin 14
    first = [(moves, ["Elapsed_7", "Pitch_60"]), (moves, ["Elapsed_1", "Pitch_60", "Elapsed_6", "Pitch_67"])]
    in_fourth = (moves, ["Elapsed_10", "Pitch_67"])
    last = [(moves, ["Elapsed_14", "Pitch_67"])]
    bars = (
        []
        if name == "tsd_reminded"
        else [("Bar", ["Elapsed_11", "Pitch_67"]), ("Bar", ["Elapsed_14", "Pitch_67"])]
    )
    assert found == [*first, in_fourth, *bars[:1], *(bars[1:] or last)]


@pytest.mark.parametrize("name", REMINDED)
def test_reminders_are_what_explicit_ties_say(name: str, tmp_path: Path) -> None:
    """But for notes that end at the line, which MidiTok's durations tell before, and beats behind the last onset."""
    tokens, given, ids = reminded(name, *random_notes(40))
    toy_tokenizer(ties="explicit").save_pretrained(tmp_path)
    piano = load("representations").PianoTokens(tmp_path, "velocity")
    vocabulary = piano.tokenizer.vocabulary
    first_bin, first_pitch = vocabulary.offset(Kind.DURATION), vocabulary.offset(Kind.PITCH)
    expected: list[list[tuple[int, int]]] = []
    for before, token in pairwise(piano.encode(given)):
        if vocabulary.kind_of[token] == Kind.TEMPO:
            expected.append([])
        elif vocabulary.kind_of[before] == Kind.DURATION:
            expected[-1].append((before - first_bin, token - first_pitch))
    ends = {(note["end"] // FRAMES, note["pitch"]) for note in given.notes if note["end"] % FRAMES == 0}
    expected = [
        [tie for tie in ties if (beat, tie[1]) not in ends] for beat, ties in enumerate(expected[:40])
    ]
    at = np.flatnonzero(ids >= len(tokens.tokenizer.vocab))
    pitch_of = [
        int(token.partition("_")[2]) if token.startswith("Pitch_") else -1 for token in tokens.tokenizer.vocab
    ]
    ties = [(ids[i] - len(tokens.tokenizer.vocab), pitch_of[ids[i + 1]]) for i in at]
    runs = [len(run) for run in np.split(at, np.flatnonzero(np.diff(at) > 2) + 1)]
    found = [ties[end - size : end] for size, end in zip(runs, np.cumsum(runs), strict=True)]
    if name == "remi_reminded":  # a bar line and the first onset behind it may both begin a beat
        found = [run for run, following in pairwise([*found, []]) if run != following]
    assert found == [run for run in expected if run]


@pytest.mark.parametrize("name", REMINDED)
def test_reminders_follow_from_what_is_before_and_cost_nothing(name: str) -> None:
    tokens, given, ids = reminded(name, *random_notes(40))
    plain = load("miditok_tokens").MidiTokTokens(name.partition("_")[0], "velocity")
    given_T = tokens.given(ids)
    assert given_T.sum() > 40
    without = plain.encode(given)
    assert np.array_equal(ids[~given_T], without)
    inserted = tokens._reminders.insert
    lengths = [inserted(without[:end]).size for end in range(1, without.size + 1)]
    assert all(
        np.array_equal(inserted(without[:end]), ids[:length]) for end, length in enumerate(lengths, start=1)
    )
    masks = tokens.token_masks(ids)
    allowed = unpack_masks(masks.packed, tokens.type_V.size)[masks.row]
    assert (allowed[given_T].sum(axis=1) == 1).all()
    assert allowed[np.arange(1, ids.size), ids[1:]].all()
    of_plain = plain.token_masks(without)
    expected = unpack_masks(of_plain.packed, plain.type_V.size)[of_plain.row]
    assert np.array_equal(allowed[~given_T][1:, : plain.type_V.size], expected[1:])
    assert not allowed[~given_T][1:, plain.type_V.size :].any()
    assert load("representations").left_out(given, tokens.decode(ids), with_velocity=True)["lost"][0] == 0


@pytest.mark.parametrize("name", [*REMINDED, "tsd"])
def test_windows_know_the_masks_of_a_whole_sequence(name: str) -> None:
    tokens, _, ids = reminded(name, *random_notes(40))
    masks, given_T = tokens.token_masks(ids), tokens.given(ids)
    allowed = unpack_masks(masks.packed, tokens.type_V.size)[masks.row]
    module = tokens.masked_targets()
    unknown = 0
    for start in range(ids.size - 20):
        window = torch.from_numpy(ids[start : start + 21])[None]
        found = module.masks[module(window[:, :-1], window[:, 1:], None)][0].numpy()
        for mask, target in zip(found, range(start + 1, start + 21), strict=True):
            known = not mask.all()
            unknown += not known
            assert given_T[target] or not known or np.array_equal(mask, allowed[target])
    assert unknown <= (ids.size - 20) * (1 if name == "tsd" else 4)


@pytest.mark.parametrize("constrained", [False, True])
def test_reminders_are_read_but_not_learned(constrained: bool) -> None:
    tokens, _, ids = reminded("tsd_reminded", *random_notes(40))
    marks = {"pad": tokens.pad, "bos": tokens.bos, "eos": tokens.eos}
    model = toy_llama(SimpleNamespace(size=tokens.type_V.size, **marks)).train()
    training = load("training")
    module = training.NotesModule(model, tokens, "adamw", 1e-3, 0.1, notes=200, constrained=constrained)
    batch = next(iter(load("corpus").Batches([ids], tokens, 32, 2, 0)))
    losses = module.target_losses(batch)
    assert losses.labels_n.numel() == batch["n_targets"] < batch["labels"].numel()
    assert torch.isfinite(losses.nats)
    learned = batch["labels"][batch["labels"] != IGNORE]
    assert not (learned >= len(tokens.tokenizer.vocab)).any()
    assert (batch["input_ids"] >= len(tokens.tokenizer.vocab)).any()
    bits = load("scoring").score(model, tokens, [ids])[0]
    given_T = tokens.given(ids)
    assert not bits.constrained[given_T].any()
    assert not bits.unconstrained[given_T].any()
    assert (bits.unconstrained[1:][~given_T[1:]] > 0).all()
