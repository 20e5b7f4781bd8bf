"""Names of licences."""

from __future__ import annotations

import pytest

from pianolm.data.licences import USES, licence_id, licence_ids, model_licence, require_use
from pianolm.data.sources import acpas, asap, demo, pop909
from pianolm.errors import UserError


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("CC0 1.0", "CC0-1.0"),
        ("cc0", "CC0-1.0"),
        ("CC0-1.0", "CC0-1.0"),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("CC-BY-2.5", "CC-BY-2.5"),
        ("Creative Commons BY-SA 4.0", "CC-BY-SA-4.0"),
        (asap.LICENCE, "CC-BY-NC-SA-4.0"),
        (pop909.LICENCE, "MIT"),
        ("MIT License", "MIT"),
        ("Public Domain", "Public-Domain"),
        ("Public-Domain", "Public-Domain"),
        (acpas.LICENCE, acpas.LICENCE),
        ("", "unknown"),
    ],
)
def test_licences_have_one_name_each(text: str, identifier: str) -> None:
    assert licence_id(text) == identifier
    assert licence_id(identifier) == identifier


def test_several_are_sorted_without_copies() -> None:
    assert licence_ids(["MIT", "CC BY 4.0", "mit", "CC-BY-4.0"]) == ["CC-BY-4.0", "MIT"]


@pytest.mark.parametrize(
    ("licences", "use", "refused"),
    [
        ([], "commercial", ""),
        (["MIT", "CC0-1.0", "Public-Domain", "CC-BY-2.5", "CC-BY-SA-4.0"], "commercial", ""),
        ([demo.LICENCE], "commercial", ""),
        (["CC-BY-NC-SA-4.0", "MIT"], "research", ""),
        ([acpas.LICENCE], "research", ""),
        (["unknown"], "research", ""),
        (
            ["CC-BY-NC-SA-4.0", "MIT"],
            "commercial",
            "under CC-BY-NC-SA-4.0, which is not known to allow commercial",
        ),
        (["MIT", "unknown"], "commercial", "under unknown, which"),
        ([acpas.LICENCE], "commercial", "under for study and research only"),
        (
            ["CC-BY-ND-4.0", "MIT"],
            "research",
            "under CC-BY-ND-4.0, which may not be passed on in another form",
        ),
        (["CC-BY-NC-ND-4.0"], "commercial", "may not be passed on in another form"),
    ],
)
def test_a_use_that_a_licence_forbids_is_refused(licences: list[str], use: str, refused: str) -> None:
    assert use in USES
    if not refused:
        require_use(licences, use, "model")
        return
    with pytest.raises(UserError, match=refused) as error:
        require_use(licences, use, "model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        ([], "mit"),
        (["MIT", "CC0-1.0", "Public-Domain", demo.LICENCE], "mit"),
        (["MIT", "CC-BY-2.5", "CC-BY-4.0"], "cc-by-4.0"),
        (["CC-BY-4.0", "CC-BY-NC-SA-4.0"], "cc-by-nc-sa-4.0"),
        (["CC-BY-NC-4.0", "MIT"], "cc-by-nc-4.0"),
        (["CC-BY-SA-4.0", "CC-BY-NC-SA-4.0"], "other"),
        (["CC-BY-SA-3.0", "CC-BY-NC-4.0"], "other"),
        (["CC-BY-4.0", "unknown"], "other"),
        ([acpas.LICENCE], "other"),
    ],
)
def test_a_model_has_a_licence_that_asks_for_no_less_than_its_data(
    licences: list[str], expected: str
) -> None:
    assert model_licence(licences) == expected
