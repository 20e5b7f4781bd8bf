"""Cards of models: metadata that the hub reads, and what a reader needs to know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from transformers import LlamaConfig

from pianolm.export.card import Facts, write_card
from pianolm.export.credits import Credit, Credits, Work
from tests.markdown import blocks, sections

CREDITS = Credits(
    [Credit("asap", "CC BY-NC-SA 4.0", "", 3, 4000), Credit("asap", "CC BY-NC-SA 4.0", "Ann", 1, 500)],
    [Work("asap", "bach/air", 4)],
)
FACTS = Facts(
    name="nocturne",
    path="anna/nocturne",
    config=LlamaConfig(num_hidden_layers=3, hidden_size=96, max_position_embeddings=512),
    parameters=1_234_567,
    has_velocities=True,
    licences=["CC-BY-NC-SA-4.0"],
    use="research",
    credits=CREDITS,
    metrics={"val/bits_per_note": 12.345, "tokens_seen": 7_000_000},
    sample_beats=32,
    seed=5,
)


def card(facts: Facts, source: Path, out: Path) -> tuple[dict[str, object], str]:
    """Metadata and text of the card that is written."""
    out.mkdir(exist_ok=True)
    write_card(facts, source, out)
    _, metadata, text = (out / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_a_new_card_has_what_the_hub_and_its_reader_need(tmp_path: Path) -> None:
    metadata, text = card(FACTS, tmp_path / "none", tmp_path / "out")
    assert metadata["license"] == "cc-by-nc-sa-4.0"
    assert metadata["library_name"] == "transformers"
    assert {"pianolm", "piano", "midi"} <= set(metadata["tags"])  # type: ignore[call-overload]
    parts = sections(text, 2)
    assert list(parts) == ["Data", "Measured", "Use", "Load", "Sample"]
    assert "1,234,567 parameters, a Llama of 3 layers, 96 wide, with a context of 512 tokens" in text
    assert "| asap | CC-BY-NC-SA-4.0 | 4 | 4,500 |" in parts["Data"]
    assert "(WORKS.csv)" in parts["Data"]
    assert "| `val/bits_per_note` | 12.35 |" in parts["Measured"]
    assert "research and teaching" in parts["Use"]
    assert len(blocks(parts["Load"], "python")) == 2
    assert parts["Load"].count('"anna/nocturne"') == 3
    assert "(seed 5)" in parts["Sample"]


@pytest.mark.parametrize(
    ("licences", "expected"), [(["MIT"], "mit"), (["MIT", "unknown"], "other"), (["CC-BY-4.0"], "cc-by-4.0")]
)
def test_the_licence_follows_from_the_music(licences: list[str], expected: str, tmp_path: Path) -> None:
    metadata, text = card(replace(FACTS, licences=licences), tmp_path / "none", tmp_path / "out")
    assert metadata["license"] == expected
    assert ("license_name" in metadata) == (expected == "other")
    assert f"Licences of the music: {', '.join(licences)}." in text


def test_a_card_without_credits_says_so(tmp_path: Path) -> None:
    _, text = card(replace(FACTS, credits=Credits([], []), metrics={}), tmp_path / "none", tmp_path / "out")
    assert "Which music it learned from is not recorded." in text
    assert "Nothing is recorded." in text


def test_a_card_that_is_there_keeps_its_text_and_gets_what_it_lacks(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "README.md").write_text("# mine\n\n## Sample\n\nListen.\n")
    metadata, text = card(FACTS, source, tmp_path / "out")
    assert metadata["license"] == "cc-by-nc-sa-4.0"
    assert list(sections(text, 2)) == ["Sample", "Load"]
    assert "Listen." in text
    by_hand = "---\nlicense: mit\n---\n\n" + text.strip() + "\n"
    (source / "README.md").write_text(by_hand)
    write_card(FACTS, source, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == by_hand
