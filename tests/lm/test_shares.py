"""Shares of rewritten windows are refused before anything is built for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pianolm.errors import UserError
from pianolm.pipeline.graph import Planner
from pianolm.pipeline.model_choice import choose_models
from tests.tiny import tiny

POP = "upstream.tokenizer=pop upstream.base=pop stage=finetune "


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        (
            "finetune.loader.fill_share=0.5 finetune.loader.control_share=0.6",
            r"^finetune\.loader\.fill_share=0\.5 and finetune\.loader\.control_share=0\.6 found, expected at most 1",
        ),
        (
            "stage=base tokenizer.ties=implicit loader.fill_share=0.2",
            r"^base\.loader\.fill_share=0\.2: tokenizer\.ties=implicit found",
        ),
        (
            "tokenizer=published base.loader.control_share=0.2",
            r"^base\.loader\.control_share=0\.2: tokenizer\.exact=false found",
        ),
        (POP + "finetune.loader.control_share=0.9", r"fill_share=0\.\d+ and .*control_share=0\.9 found"),
    ],
)
def test_what_cannot_be_rewritten_is_refused(given: str, refused: str, tmp_path: Path) -> None:
    """What a base model brings along counts, too."""
    words = given.split()
    cfg = choose_models(tiny(tmp_path, *words), words, lambda line: None)
    with pytest.raises(UserError, match=refused):
        Planner(cfg).plan()


def test_the_layout_is_that_of_a_given_tokenizer(tmp_path: Path) -> None:
    """`pop` has explicit ties, whatever the options of the tokenizer would make."""
    words = (POP + "tokenizer.ties=implicit finetune.loader.fill_share=0.2").split()
    assert Planner(choose_models(tiny(tmp_path, *words), words, lambda line: None)).plan().stage == "finetune"
