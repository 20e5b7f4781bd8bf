"""README.md, docs/ and the cards of the bundled models: commands and code run, links resolve, and figures are those of
the experiments.

Commands run in this process with the settings of `tests/tiny.py`; those of a sweep are planned, as are those of docs/,
of the cards and of conf/experiment/.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.types import IntervalSweep
from omegaconf import OmegaConf

from experiments.results import read_rows
from pianolm.config.check import parse
from pianolm.pipeline.graph import Planner
from pianolm.run import checked, execute
from pianolm.stages import stage_names
from tests.dynamics.toys import played
from tests.music.toy_tracker import bass_tracker

from .markdown import ROOT, anchors, blocks, commands, links, sections, table_rows
from .tiny import TINY, composed, tiny

README = (ROOT / "README.md").read_text("utf-8")
DOCS = [*sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "pianolm" / "models").glob("*/README.md"))]
RECIPES = sorted((ROOT / "conf" / "experiment").glob("*.yaml"))
EXTENDING = "extending.md"  # names parts that do not exist: test_extending.py runs it
METRICS = (ROOT / "docs" / "metrics.md").read_text("utf-8")
MOST_WORDS = 1200
PIANOLM = ["python", "-m", "pianolm.run"]
OTHER_COMMANDS = ("make", "git", "source", "pip")

ASAP_COLUMNS = (
    "composer,title,folder,midi_score,midi_performance,performance_annotations,midi_score_annotations"
)
YAML_NAME = re.compile(r"^# (my_conf/\S+\.yaml)", re.MULTILINE)

pytestmark = pytest.mark.usefixtures("without_pictures")


def arguments_of(text: str) -> list[str]:
    """The command lines of pianolm in a text, without `python -m pianolm.run`."""
    return [" ".join(map(_quoted, words[3:])) for words in commands(text) if words[:3] == PIANOLM]


def _quoted(word: str) -> str:
    return f"'{word}'" if re.search(r"[*\[\] ]", word) else word


class Workspace:
    """A working directory with everything that the commands name: MIDI files, data sets, runs and artifacts."""

    def __init__(self, root: Path, artifacts: Path, model: Path) -> None:
        self.root, self.artifacts, self.model = root, artifacts, model
        self._runs = itertools.count()

    def words(self, line: str) -> list[str]:
        """A command line as words, with paths for its placeholders."""
        (words,) = commands(f"```bash\n{line}\n```\n")
        codebook = next((self.artifacts / "codebook").glob("*/codebook.npz"))
        paths = {
            "upstream.model=DIR": f"upstream.model={self.model}",
            "upstream.model=user/name": f"upstream.model={self.model}",
            "upstream.base=user/name": f"upstream.base={self.model}",
            "upstream.tokenizer=DIR": f"upstream.tokenizer={self.model}",
            "upstream.velvq=DIR": f"upstream.velvq={next((self.artifacts / 'velvq').iterdir())}",
            "upstream.model=FILE": f"upstream.model={self.model}/model.safetensors",
            "upstream.base=FILE": f"upstream.base={self.model}/model.safetensors",
            "upstream.codebook=FILE": f"upstream.codebook={codebook}",
            "upstream.model=artifacts/dynamics/NAME": f"upstream.model={self.model}",
            "data.tracker=artifacts/beats/NAME": f"data.tracker={self.root}/tracker",
            "data.parts.pop909=PATH": f"data.parts.pop909={self.root}/pop909",
            "data.parts.scores=PATH": f"data.parts.scores={self.root}/scores",
            "plot.run=DIR": "plot.run=outputs/base/1",
            "plot.run=outputs/latest": "plot.run=outputs/base/1",
            "resume=ARTIFACT": f"resume={next((self.artifacts / 'base').iterdir())}",
            "generate.seconds=20": "generate.seconds=2",
        }
        source = next((word[5:] for word in words if word.startswith("data=")), "")
        return [paths.get(word, word.replace("root=PATH", f"root={self.root / source}")) for word in words]

    def cfg(self, line: str, *more: str, small: bool = True) -> list[dict[str, Any]]:
        """The configurations of a command line: one, or one for each job of a sweep."""
        words = checked(self.words(line))
        directory = words.index("--config-dir") + 1 if "--config-dir" in words else 0
        extra = (
            [f"hydra.searchpath=[file://{(self.root / words[directory]).absolute()}]"] if directory else []
        )
        given = [word for word in words[directory + 1 if directory else 0 :] if word != "-m"]
        names = {word.lstrip("+").partition("=")[0] for word in given}
        if "generate.mode=dynamics" in given and "upstream.model" not in names:
            extra.append("upstream.model=dynamics")  # as the command line chooses
        if "generate.mode=fill" in given and "upstream.model" not in names:
            extra.append(f"upstream.model={ROOT / 'pianolm' / 'models' / 'pop'}")  # likewise
        settings = [
            setting for setting in TINY if setting.partition("=")[0] not in names & {"hardware", "logger"}
        ]
        if any(name == "data" for name in names):
            settings.remove("data.pieces=8")
        settings += [
            "finetune.trainer.max_steps=6",
            "generate.audio=false",
        ]  # experiment=demo has its own steps
        if "upstream.model" in names or "data" not in names:
            settings.append(
                "generate.page=false"
            )  # the page is made by the command that builds a chain of its own
        lists = [self._values(word) if "-m" in words else [word] for word in given]
        recipes = [
            word.partition("=")[2] for word in given if "-m" in words and word.startswith("experiment=")
        ]
        of_recipe = [job for recipe in recipes for job in self._ends(recipe)] or [()]
        tail = [*extra, *(settings if small else []), f"paths.artifacts={self.artifacts}", *more]
        return [composed(*job, *values, *tail) for job in itertools.product(*lists) for values in of_recipe]

    def _ends(self, recipe: str) -> list[tuple[str, ...]]:
        """The first and the last job of a sweep that a file of conf/experiment/ describes."""
        params = OmegaConf.load(ROOT / "conf" / "experiment" / f"{recipe}.yaml").hydra.sweeper.params
        values = [self._values(f"{key}={value}") for key, value in params.items()]
        return [tuple(those[end] for those in values) for end in (0, -1)]

    @staticmethod
    def _values(word: str) -> list[str]:
        """The overrides of a sweep over one key."""
        (override,) = parse([word])[0]
        if not override.is_sweep_override():
            return [word]
        if isinstance(interval := override.value(), IntervalSweep):
            return [f"{override.key_or_group}={interval.start}"]  # as a sampler may choose
        return [f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()]

    def run(self, line: str) -> dict[str, Any]:
        """Runs a command with small settings; its metrics, or nothing where it only plans."""
        (cfg,) = self.cfg(line)
        return execute(cfg, self.root / "outputs" / cfg["stage"]["name"] / f"run{next(self._runs)}")


@pytest.fixture(scope="module")
def workspace(
    chain: Path,
    tmp_path_factory: pytest.TempPathFactory,
    midi_file: Callable[..., Path],
    beat_file: Callable[..., Path],
) -> Workspace:
    root = tmp_path_factory.mktemp("readme")
    shutil.copytree(chain / "artifacts", root / "artifacts")  # these tests add to them
    shutil.copytree(chain / "run" / "base", root / "outputs" / "base" / "1" / "base")
    rows, scores = [ASAP_COLUMNS], ["midi,annotations,composer,title,work_id,licence,attribution,asap_work"]
    for number in range(6):
        name = f"Bach/{number}/Ann"
        midi_file(root / "asap" / f"{name}.mid", seed=number)
        beat_file(root / "asap" / f"{name}_annotations.txt")
        midi_file(root / "folder" / f"{number}.mid", seed=number)
        song = root / "pop909" / "POP909" / f"{(1, 2, 3, 4, 750, 850)[number]:03d}"
        midi_file(song / f"{song.name}.mid", seed=number)
        midi_file(root / "scores" / f"{number}.mid", seed=number)
        beat_file(root / "scores" / f"{number}_annotations.txt")
        scores.append(f"{number}.mid,{number}_annotations.txt,Chopin,Waltz {number},{number},CC0 1.0,,")
        rows.append(f"Bach,{number},Bach/{number},,{name}.mid,{name}_annotations.txt,")
    (root / "asap" / "metadata.csv").write_text("\n".join(rows) + "\n")
    (root / "scores" / "metadata.csv").write_text("\n".join(scores) + "\n")
    (root / "tracker").mkdir()
    bass_tracker().save(root / "tracker")
    (root / "acpas").mkdir()
    (root / "acpas" / "distinct_pieces.csv").write_text("composer,split,ASAP_title\nLiszt,test,Sonata\n")
    for path in ("my.mid", "songs/a.mid", "songs/b.mid"):
        (root / path).parent.mkdir(exist_ok=True)
        played(seed=len(path)).to_midi(root / path)
    for block in (block for doc in DOCS for block in blocks(doc.read_text("utf-8"), "yaml")):
        for name in YAML_NAME.findall(block.text):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(block.text)
    finetuned = Planner(tiny(chain)).node("finetune").fingerprint
    return Workspace(root, root / "artifacts", root / "artifacts" / "finetune" / finetuned)


@pytest.fixture(autouse=True)
def _in_workspace(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "workspace" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("workspace").root)


def documented(stage: str) -> set[str]:
    """Metric keys that docs/metrics.md lists for a stage or measure."""
    parts = sections(METRICS, 2)
    names = {key for part in (parts["Every stage"], parts[stage]) for key in re.findall(r"`([\w./]+)`", part)}
    return names | {f"codes_per_cell_{method}" for method in ("frequency", "savings", "kmeans")}


def undocumented(metrics: Mapping[str, Any], measure: str) -> set[str]:
    """Keys of a run's metrics that docs/metrics.md does not list."""
    section = f"evaluate={measure}" if metrics["stage"] == "evaluate" else str(metrics["stage"])
    found = next(name for name in sections(METRICS, 2) if section in name.split(", "))
    return set(metrics) - documented(found)


RUN = [line for line in arguments_of(README) if line not in ("--help",) and not line.startswith("-m")]


def _as_slow(line: str) -> Any:
    """Trainings that tests of other files do with other settings."""
    is_slow = "data=asap" in line or "upstream.base=pop" in line
    return pytest.param(line, marks=pytest.mark.slow) if is_slow else line


@pytest.mark.parametrize("line", [_as_slow(line) for line in RUN])
def test_a_command_of_the_readme_runs(line: str, workspace: Workspace) -> None:
    metrics = workspace.run(line)
    if "plan=true" in line:
        assert metrics == {}
        return
    (cfg,) = workspace.cfg(line)
    assert undocumented(metrics, cfg["evaluate"]["name"]) == set()
    assert Path(metrics["artifact"]).is_dir()


def commands_of_recipes() -> list[str]:
    """The command in the comment at the head of each file of conf/experiment/."""
    heads = [
        re.findall(r"^#   python -m pianolm\.run (.*)$", path.read_text("utf-8"), re.MULTILINE)
        for path in RECIPES
    ]
    assert all(len(found) == 1 for found in heads)
    return [line for (line,) in heads]


PLANNED = [
    *(line for doc in DOCS if doc.name != EXTENDING for line in arguments_of(doc.read_text("utf-8"))),
    *(line for line in arguments_of(README) if line.startswith("-m")),
    *commands_of_recipes(),
]


@pytest.mark.parametrize("line", list(dict.fromkeys(PLANNED)))
def test_a_command_of_the_docs_makes_a_plan(line: str, workspace: Workspace) -> None:
    if line == "--help":
        return
    jobs = workspace.cfg(line, "plan=true", small=False)
    assert len(jobs) > 1 or not line.startswith("-m")
    for cfg in jobs:
        assert execute(cfg, workspace.root / "unused") == {}


@pytest.mark.parametrize("measure", ["roundtrip", "dynamics"])
def test_measures_have_documented_metrics(measure: str, workspace: Workspace) -> None:
    given = f"upstream.tokenizer={workspace.model}" if measure == "roundtrip" else "upstream.model=DIR"
    metrics = workspace.run(f"stage=evaluate evaluate={measure} {given}")
    assert undocumented(metrics, measure) == set()


@pytest.mark.parametrize("stage", ["prepare", "codebook", "velvq", "tokenize", "base", "finetune"])
def test_stages_have_documented_metrics(stage: str, chain: Path) -> None:
    for path in (chain / "artifacts" / stage).glob("*/artifact.json"):
        assert undocumented({"stage": stage, **json.loads(path.read_text())["metrics"]}, "") == set()


def test_the_python_code_of_the_readme_runs(workspace: Workspace) -> None:
    (block,) = blocks(README, "python")
    names: dict[str, Any] = {}
    exec(block.text, names)
    assert len(names["lively"].notes) == len(names["piece"].notes)
    assert names["back"].skipped == 0
    assert all((workspace.root / name).is_file() for name in ("back.mid", "new_0.mid", "new_1.mid"))


def test_other_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [README, *((ROOT / name).read_text("utf-8") for name in ("CONTRIBUTING.md",))]
    for words in (words for text in texts for words in commands(text)):
        assert words[:3] == PIANOLM or words[0] in OTHER_COMMANDS, words
        if words[0] == "make":
            assert words[1] in targets


def test_the_readme_is_short_enough() -> None:
    assert len(README.split()) <= MOST_WORDS


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("*.md"), *DOCS, *ROOT.glob("experiments/**/README.md")],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_links_and_pictures_exist(path: Path) -> None:
    for target, anchor in links(path.read_text("utf-8")):
        found = path.parent / target if target else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text("utf-8")), f"{target}#{anchor}"


def test_the_tree_shows_every_folder() -> None:
    tree = next(body for body in README.split("```") if "run.py" in body and "conf/" in body)
    named = set(re.findall(r"(\w+)/", tree))
    folders = {p.name for p in (ROOT / "pianolm").iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert named == folders | {"pianolm", "conf", "experiments", "experiment", "tests"}


def test_every_stage_is_documented() -> None:
    named = {name.partition("=")[0] for heading in sections(METRICS, 2) for name in heading.split(", ")}
    assert set(stage_names()) == named - {"Every stage"}


def figures(folder: str) -> dict[str, float]:
    """The headline figures of an experiment."""
    values: dict[str, float] = json.loads((ROOT / "experiments" / folder / "metrics.json").read_text())
    return values


def rows_of_results() -> list[tuple[str, str]]:
    """A part of each row of the table of results: its link, and the figure that the experiment's files give."""
    roundtrip, velvq = figures("roundtrip"), figures("velvq")
    embedding, validity = figures("codebook-embedding"), figures("generation-validity")
    dynamics = figures("dynamics")
    box, beats, resume = figures("box-model"), figures("beats"), figures("exact-resume")
    samples = read_rows(ROOT / "experiments/box-model/results.jsonl")
    (human_likeness,) = (row["human_bar_likeness"] for row in samples if row["run"] == "pop-samples")
    comparison = table_rows((ROOT / "experiments/tokenizer-comparison/README.md").read_text("utf-8"))
    # comparable bits, the fourth column from the end; the first table, ASAP, wins
    bits = {row[0]: row[-4] for row in reversed(comparison) if len(row) > 10}
    speed = {name: figures(f"benchmarks/{name}-speed") for name in ("tokenizer", "generation", "training")}
    frame = velvq["frame/val/velocity_mae"]
    return [
        ("roundtrip", f"{roundtrip['notes_exact']:.4%} of {roundtrip['notes']}".replace("%", " %")),
        (
            "box-model",
            f"{box['pop/bits_per_note_without_bars']:.2f}; {box['pop/bar_likeness']:.2f}, {human_likeness:.2f}",
        ),
        ("velvq", f"{velvq['val/velocity_mae']:.3f}, {frame:.3f} MIDI units"),
        (
            "tokenizer-comparison",
            f"{bits['pianolm, codebook, ties=explicit constrained']}, {bits['MidiTok REMI']}",
        ),
        (
            "codebook-embedding",
            f"{embedding['bits_per_note_codebook_induction']:.1f}, {embedding['bits_per_note_table_induction']:.1f}",
        ),
        (
            "dynamics",
            "; ".join(
                ", ".join(
                    f"{dynamics[f'{name}{suffix}/velocity_r']:.2f}" for name in ("ridge-squares-told", "told")
                )
                for suffix in ("", "-strict")
            ),
        ),
        ("generation-validity", f"{100 * validity['valid_fraction']:.0f} % of {validity['pieces']}"),
        ("beats", f"{beats['asap/librosa_beat_f']:.2f}, {beats['asap/beat_f']:.2f}"),
        ("exact-resume", f"{resume['identical_cases']} of {resume['cases']}"),
        ("tokenizer-speed", f"{speed['tokenizer']['speedup_vs_miditok_remi']:.1f} times as fast"),
        ("generation-speed", f"{speed['generation']['speedup_box_batch1']:.1f} times as fast"),
        ("training-speed", f"{speed['training']['step_time_over_bare_loop']:.2f} times"),
    ]


def test_figures_are_those_of_the_experiments() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| ") and line.count("|") == 4][1:]
    expected = rows_of_results()
    assert len(rows) == len(expected)
    for line, (link, figure) in zip(rows, expected, strict=True):
        assert link in line
        assert f"| {figure} |" in line, f"expected {figure}"
