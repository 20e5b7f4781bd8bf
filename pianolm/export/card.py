"""The card of a model: `README.md` with the metadata that the Hugging Face hub reads.

A model that has a card keeps its text, and its metadata where it has some; what is missing is added.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

import pianolm
from pianolm.data.licences import licence_id, model_licence
from pianolm.export.credits import CREDITS, Credits
from pianolm.models import WORKS

CARD = "README.md"
TAGS = ("pianolm", "music", "piano", "midi", "symbolic-music")
_METADATA = re.compile(r"\A---\n.*?^---\n", re.DOTALL | re.MULTILINE)
_MEASURED = ("val/bits_per_note", "val/loss", "val/unigram_entropy", "tokens_seen")
_MEANING = {
    "val/bits_per_note": "bits of all tokens of the validation pieces over their notes",
    "val/loss": "nats a token on the validation pieces",
    "val/unigram_entropy": "nats a token if tokens were guessed from their frequencies",
    "tokens_seen": "tokens in training",
}

_LOAD = """\
## Load

With pianolm, whose sampling is made for it:

```python
from pianolm import PianoLM

(new,) = PianoLM.from_pretrained("{path}").generate(prompt="my.mid", beats=32)
new.to_midi("new.mid")
```

With transformers; the tokenizer beside the weights needs pianolm installed, the network does not:

```python
{transformers}```
"""

TRANSFORMERS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{path}", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("{path}")
inputs = tokenizer("my.mid", return_tensors="pt")
ids = model.generate(
    **inputs, prefix_allowed_tokens_fn=tokenizer.grammar(inputs), max_new_tokens=200, do_sample=True
)
tokenizer.decode(ids[0]).to_midi("new.mid")
"""
"""Playing an exported model without `PianoLM`; docs/other-programs.md shows the same lines."""

_SAMPLE = """\
## Sample

![the piano roll of a sample](sample.png)

{beats} beats from nothing, the first ones drawn (seed {seed}): [MIDI](sample.mid), [sound](sample.mp3).
"""


@dataclass(frozen=True)
class Facts:
    """What a card says of a model.

    Attributes:
        name: Heading.
        path: How the model is loaded: `user/name`, or the name of its directory.
        config: The network.
        parameters: Number of weights.
        has_velocities: Whether its notes have dynamics.
        licences: Those of the music that it learned from.
        use: `research` or `commercial`.
        credits: The music.
        metrics: Of training.
        sample_beats: Length of the sample.
        seed: Of the sample.
    """

    name: str
    path: str
    config: LlamaConfig
    parameters: int
    has_velocities: bool
    licences: Sequence[str]
    use: str
    credits: Credits
    metrics: Mapping[str, Any]
    sample_beats: int
    seed: int


def write_card(facts: Facts, source: Path, out: Path) -> None:
    """Writes the card of a model to `out`, from the card in `source` if there is one."""
    path = source / CARD
    text = path.read_text("utf-8") if path.is_file() else ""
    found = _METADATA.match(text)
    metadata = found[0] if found else _metadata(facts)
    body = text[found.end() if found else 0 :].strip() or _description(facts)
    for heading, part in (("## Load", _load(facts)), ("## Sample", _sample(facts))):
        if heading not in body.splitlines():
            body = f"{body}\n\n{part.strip()}"
    (out / CARD).write_text(f"{metadata}\n{body.strip()}\n", "utf-8")


def _metadata(facts: Facts) -> str:
    licence = model_licence(facts.licences)
    lines = ["---", f"license: {licence}"]
    if licence == "other":
        lines.append("license_name: see-the-data")
    lines += ["library_name: transformers", "tags:", *(f"- {tag}" for tag in TAGS), "---", ""]
    return "\n".join(lines)


def _description(facts: Facts) -> str:
    return "\n\n".join((_head(facts), _data(facts), _measured(facts), _use(facts)))


def _head(facts: Facts) -> str:
    config, dynamics = facts.config, "with dynamics" if facts.has_velocities else "without dynamics"
    return (
        f"# {facts.name}\n\n"
        f"A language model that writes piano music {dynamics}: {facts.parameters:,} parameters, a Llama of "
        f"{config.num_hidden_layers} layers, {config.hidden_size} wide, with a context of "
        f"{config.max_position_embeddings:,} tokens. It continues a piano piece or begins one. Made with pianolm "
        f"{pianolm.__version__}."
    )


def _data(facts: Facts) -> str:
    licences = f"Licences of the music: {', '.join(facts.licences)}."
    if not facts.credits.sets:
        return f"## Data\n\nWhich music it learned from is not recorded. {licences}"
    table = "\n".join(_table(("set", "licence", "pieces", "notes"), _sets(facts.credits)))
    works = f", [{WORKS}]({WORKS}) names the works" if facts.credits.works else ""
    return (
        f"## Data\n\n{table}\n\nPieces to train and to validate on. [{CREDITS}]({CREDITS}) says whom to credit; "
        f"keep it where you pass the model on{works}. {licences}"
    )


def _sets(credits: Credits) -> Iterable[tuple[str, ...]]:
    """One row for each set and licence, over all attributions."""
    rows: dict[tuple[str, str], list[int]] = {}
    for row in credits.sets:
        count = rows.setdefault((row.source, licence_id(row.licence)), [0, 0])
        count[0] += row.pieces
        count[1] += row.notes
    for (source, licence), (pieces, notes) in sorted(rows.items()):
        yield source, licence, f"{pieces:,}", f"{notes:,}"


def _measured(facts: Facts) -> str:
    known = [(name, facts.metrics[name]) for name in _MEASURED if name in facts.metrics]
    if not known:
        return "## Measured\n\nNothing is recorded."
    rows = (
        (f"`{name}`", f"{value:,.4g}" if isinstance(value, float) else f"{value:,}", _MEANING[name])
        for name, value in known
    )
    return "\n".join(["## Measured", "", *_table(("", "", ""), rows)])


def _use(facts: Facts) -> str:
    licence = model_licence(facts.licences)
    terms = (
        "The licences of its music allow commercial use."
        if facts.use == "commercial"
        else "It is meant for research and teaching, and as the start of other models; whether it may be used "
        "commercially depends on the licences of its music."
    )
    named = "see the licences of its music above" if licence == "other" else f"`{licence}`"
    return (
        f"## Use\n\nLicence: {named}. {terms} It knows piano notes on beats and nothing else: no other instruments, no "
        "pedal, and no memory longer than its context. What it writes may resemble music that it learned from. Do not "
        "present its music as that of a person."
    )


def _load(facts: Facts) -> str:
    return _LOAD.format(path=facts.path, transformers=TRANSFORMERS.format(path=facts.path))


def _sample(facts: Facts) -> str:
    return _SAMPLE.format(beats=facts.sample_beats, seed=facts.seed)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(text.replace('|', '/') for text in row)} |" for row in rows)]
