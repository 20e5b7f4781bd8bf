"""The pages of options, `docs/options/`, from the dataclasses of `pianolm/config/`: an index and a page a topic.

Each option is a heading, so that a search finds it and a link leads to it: `options/data.md#dataroot` is `data.root`,
with the anchors that code hosts make.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pianolm.config.check import choices
from pianolm.config.help import option_text, options
from pianolm.config.option import expected, fields_of, is_group, sentence_of
from pianolm.config.root import VARIANTS
from pianolm.config.training import STAGE_GROUPS

Option = tuple[str, Any, Any, Any]
"""Key, field, type and default, as `pianolm.config.help.options` gives them."""

_INDEX = """\
# Options

Every option by name, each a link to what it does, its default and what fits. Change a value with `key=value` and choose
in a group with `group=choice` ([configuration](../configuration.md)); `python -m pianolm.run --help` prints the same
texts. Where a default depends on the choice of a group, the first choice that has the option is shown.

These pages are made from the dataclasses in `pianolm/config/`; `python -m docs.site.write` writes them again.
"""
_CHOICES = """
## Choices of the groups

`group=choice` takes `conf/GROUP/CHOICE.yaml`, whose first line is shown here.
"""
_SWEEPS = """
Sweeps have options of their own: [launchers](../sweeps.md#where-jobs-run),
[Optuna](../sweeps.md#values-chosen-by-optuna)."""


class Topic(NamedTuple):
    """A page of options.

    Attributes:
        title: What its options are of.
        groups: A sentence for each group on it; options at the root are a group `""`.
    """

    title: str
    groups: Mapping[str, str]


TOPICS = {
    "data": Topic(
        "data",
        {"data": "Where music lies, what is read of it, beats, split: [data](../data.md)."},
    ),
    "tokenizer": Topic(
        "tokens",
        {
            "tokenizer": "What is written as tokens, and how: [tokens](../tokens.md).",
            "codebook": "How the patterns that have a code are chosen.",
            "velvq": "Size and training of the [velocity codec](../velvq.md).",
        },
    ),
    "model": Topic(
        "networks",
        {
            "model": "Size and beginning of the language model.",
            "beats": "Size and training of the [beat tracker](../beats.md).",
            "dynamics": "Size and training of the [dynamics model](../dynamics.md).",
        },
    ),
    "training": Topic(
        "training",
        {
            "optimizer": "Learning rate and its schedule: [training](../training.md#optimizer-and-schedule).",
            "loader": "What a batch is made of.",
            "loss": "What is minimised.",
            "finetune": "Of stage `finetune` alone.",
        },
    ),
    "trainer": Topic(
        "Lightning's trainer",
        {"trainer": "Arguments of `lightning.Trainer`: [training](../training.md#trainer)."},
    ),
    "generate": Topic(
        "generate",
        {
            "generate": "What is played from which prompt ([filling gaps](../fill.md), [loudness and density]"
            "(../controls.md), [dynamics](../dynamics.md)), and how it is [sampled](../sampling.md).",
        },
    ),
    "evaluate": Topic(
        "evaluate, plot, export, artifacts",
        {
            "evaluate": "What is measured of which pieces; the results are in [metrics](../metrics.md).",
            "plot": "What is drawn.",
            "export": "A model for [other programs](../other-programs.md).",
            "artifacts": "What is checked or removed of [artifacts](../artifacts.md).",
        },
    ),
    "run": Topic(
        "runs",
        {
            "stage": "What is done: [stages](../stages.md).",
            "": "[Stopping and continuing](../training.md#stopping-and-continuing), [callbacks and loggers]"
            "(../training.md#callbacks-and-loggers).",
            "upstream": "Takes something made before instead of building it.",
            "hardware": "Devices and precision: [training](../training.md#hardware), [clusters](../cluster.md).",
            "compute": "Threads and processes on the CPU.",
            "paths": "Where results are written: [files](../files.md).",
        },
    ),
}
"""Pages by the names of their files, in the order of the navigation."""


def option_pages(config_dir: Path) -> dict[str, str]:
    """The pages by name: `README.md`, the index, and one for each topic.

    Args:
        config_dir: Directory of the YAML files.
    """
    by_group: dict[str, list[Option]] = {}
    for row in options(config_dir):
        by_group.setdefault(_group_of(row[0]), []).append(row)
    missing = by_group.keys() ^ {group for topic in TOPICS.values() for group in topic.groups}
    assert not missing, f"groups without options, or on no page: {missing}"
    links = _links(by_group)
    names = choices([config_dir])
    pages = {
        f"{name}.md": "\n".join(_page(topic, by_group, names, links)) + "\n" for name, topic in TOPICS.items()
    }
    return {"README.md": "\n".join(_index(config_dir, by_group, names, links)) + "\n", **pages}


def anchor(heading: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w -]", "", heading).replace(" ", "-").lower()


def _group_of(key: str) -> str:
    return key.partition(".")[0] if "." in key else ""


def _links(by_group: Mapping[str, list[Option]]) -> dict[str, str]:
    """Address of each option, relative to docs/options/."""
    return {
        key: f"{name}.md#{anchor(key)}"
        for name, topic in TOPICS.items()
        for group in topic.groups
        for key, *_ in by_group[group]
    }


def _index(
    config_dir: Path,
    by_group: Mapping[str, list[Option]],
    names: Mapping[str, list[str]],
    links: Mapping[str, str],
) -> Iterator[str]:
    yield from (_INDEX, "| group | what it sets | options |", "|---|---|---|")
    for name, topic in TOPICS.items():
        for group, sentence in topic.groups.items():
            heading = _heading(group)
            keys = [key for key, *_ in by_group[group]]
            shown = " ".join(f"[`{key}`]({links[key]})" for key in keys)
            yield f"| [{heading}]({name}.md#{anchor(heading)}) | {sentence} | {shown} |"
    yield from (_CHOICES, "| choice | what it is |", "|---|---|")
    for group, found in names.items():
        if len(found) > 1:
            for choice in found:
                yield f"| `{group}={choice}` | {purpose(config_dir / group / f'{choice}.yaml')} |"
    yield _SWEEPS


def purpose(file: Path) -> str:
    """What a YAML file is for: its first comment, without the command behind it."""
    lines = (line[2:] for line in file.read_text("utf-8").splitlines() if line.startswith("# "))
    first = next(line for line in lines if not line.startswith("@package"))
    sentence, _, command = first.rpartition(": ")
    return (sentence if "=" in command else first).rstrip(":").replace("|", r"\|")


def _page(
    topic: Topic,
    by_group: Mapping[str, list[Option]],
    names: Mapping[str, list[str]],
    links: Mapping[str, str],
) -> Iterator[str]:
    yield from (f"# Options: {topic.title}", "", "[All options](README.md)")
    for group, sentence in topic.groups.items():
        yield from ("", f"## {_heading(group)}", "", " ".join([sentence, *_further(group, names)]))
        for row in by_group[group]:
            yield from ("", f"### `{row[0]}`", "", _entry(row, links))


def _heading(group: str) -> str:
    return group or "Without a group"


def _further(group: str, names: Mapping[str, list[str]]) -> Iterator[str]:
    """Sentences on the choices of a group and on single stages."""
    if len(found := names.get(group, [])) > 1:
        yield f"Choices: {_codes(f'{group}={name}' for name in found)}."
    if group in STAGE_GROUPS:
        yield f"`base.{group}.*` and `finetune.{group}.*` override these for one stage."


def _entry(row: Option, links: Mapping[str, str]) -> str:
    """What an option does, and in a second line its default and what fits."""
    key, field, hint, value = row
    facts = [f"default `{option_text(value)}`", expected(field, hint).replace("_", r"\_"), *_where(key)]
    return f"{_with_links(sentence_of(field), key, links)}<br>*{'; '.join(facts)}*"


def _where(key: str) -> Iterator[str]:
    """The choices that an option is limited to."""
    group, _, name = key.partition(".")
    if group in VARIANTS:
        variants = VARIANTS[group][1]
        having = [choice for choice, cls in variants.items() if name in _names(cls)]
        without = [choice for choice in variants if choice not in having]
        if without:
            word, shown = ("only with", having) if len(having) <= len(without) else ("not with", without)
            yield f"{word} {_codes(f'{group}={choice}' for choice in shown)}"


def _names(cls: type, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, (_, hint) in fields_of(cls).items():
        found |= _names(hint, f"{prefix}{name}.") if is_group(hint) else {prefix + name}
    return found


def _with_links(sentence: str, key: str, links: Mapping[str, str]) -> str:
    """A sentence in which the options that it names, with a value or without, lead to them."""

    def link(match: re.Match[str]) -> str:
        target = links.get(match[1])
        return match[0] if target is None or match[1] == key else f"[`{match[0]}`]({target})"

    sentence = sentence.replace("*", r"\*")  # of patterns such as songs/*.mid
    return re.sub(r"(?<![\w`./])(\w+(?:\.\w+)+)(?:=[\w.\[\],-]*[\w\]])?(?![\w`])", link, sentence)


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def write(root: Path) -> None:
    """Writes the pages of a checkout."""
    for name, text in option_pages(root / "conf").items():
        (root / "docs" / "options" / name).write_text(text, "utf-8")
