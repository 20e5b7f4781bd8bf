from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from pianolm.errors import UserError
from pianolm.tokenizer.config import TokenizerSettings, read_settings
from pianolm.tokenizer.ties import TIES
from pianolm.tokenizer.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"mode": "veloctiy"}, r"tokenizer\.mode='veloctiy' found, expected one of velocity, base"),
        ({"ties": "repaet"}, r"tokenizer\.ties='repaet' found, expected one of repeat, implicit, explicit"),
        (
            {"tempo": "linear10"},
            r"tokenizer\.tempo='linear10' found, expected one of log50, log50_tuned, published",
        ),
        ({"bars": 1}, r"tokenizer\.bars=1 found, expected true or false"),
        ({"exact": "no"}, r"tokenizer\.exact='no' found, expected true or false"),
        ({"vocabulary": {"l1": 0}}, r"tokenizer\.vocabulary: l1=0 found"),
    ],
)
def test_an_unknown_value_is_one_sentence(settings: dict, match: str) -> None:
    with pytest.raises(UserError, match=match):
        TokenizerSettings.from_dict(settings)


@pytest.mark.parametrize(("ties", "bars"), [*product(TIES, [False, True])])
def test_three_levels_exclude_ties_and_bars(ties: str, bars: bool) -> None:
    if ties == "repeat" and not bars:
        assert not TokenizerSettings(exact=False).exact
        return
    with pytest.raises(UserError, match=rf"tokenizer\.exact=false found with tokenizer\.ties={ties}"):
        TokenizerSettings(exact=False, ties=ties, bars=bars)


@pytest.mark.parametrize(
    ("options", "reserved", "needed"),
    [({"bars": True}, 377, 449), ({"bars": True}, 448, 449), ({"ties": "explicit"}, 449, 465)],
)
def test_options_need_their_ids(options: dict, reserved: int, needed: int) -> None:
    assert TokenizerSettings(vocabulary=Vocabulary(reserved=reserved)).vocabulary.reserved == reserved
    assert TokenizerSettings(vocabulary=Vocabulary(reserved=needed), **options)
    with pytest.raises(UserError, match=rf"reserved={reserved} found, expected at least {needed}"):
        TokenizerSettings(vocabulary=Vocabulary(reserved=reserved), **options)


def test_saved_settings_come_back(tmp_path: Path) -> None:
    settings = TokenizerSettings("base", "explicit", True, "log50", True, Vocabulary(l1=100))
    settings.save(tmp_path, {"codebook": "x"})
    saved = read_settings(tmp_path)
    assert TokenizerSettings.from_dict(saved) == settings
    assert saved["hashes"] == {"codebook": "x"}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format_version": 4}, "format 4 found, expected 1; build the tokenizer again with stage=tokenize"),
        ({"ties": None}, "lacks ties"),
        ({"tolerance": 0}, "unknown tolerance"),
        ({"format_version": None}, "lacks format_version"),
    ],
)
def test_any_other_format_is_refused_in_one_sentence(change: dict, match: str, tmp_path: Path) -> None:
    TokenizerSettings().save(tmp_path, {})
    file = tmp_path / "tokenizer.json"
    saved = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({key: value for key, value in saved.items() if value is not None}))
    with pytest.raises(UserError, match=match) as error:
        read_settings(tmp_path)
    assert "\n" not in str(error.value)
