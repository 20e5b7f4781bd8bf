"""Names of licences."""

from __future__ import annotations

import pytest

from pianolm.data.licences import licence_id, licence_ids
from pianolm.data.sources import acpas, asap, pop909


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
