"""Licences of pieces under one name each, and the refusal of licences that are not allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pianolm.errors import UserError

if TYPE_CHECKING:
    from pianolm.data.sources.base import Record

_CREATIVE_COMMONS = re.compile(r"^(?:cc|creative commons)[ -]+([a-z0-9 -]+?)[ -]+(\d\.\d)$")
_KNOWN = {"mit": "MIT", "mit license": "MIT", "public domain": "Public-Domain", "cc0": "CC0-1.0"}


def licence_id(text: str) -> str:
    """The SPDX identifier of a licence as data sets write it.

    `CC0 1.0` becomes `CC0-1.0` and `CC BY-NC-SA 4.0` becomes `CC-BY-NC-SA-4.0`. SPDX has no identifier for works in
    the public domain: they are `Public-Domain`. A licence in other words stays as it is.
    """
    words = " ".join(text.lower().replace("-", " ").split())
    if words in _KNOWN:
        return _KNOWN[words]
    if words == "cc0 1.0":
        return "CC0-1.0"
    found = _CREATIVE_COMMONS.match(words)
    return f"CC-{'-'.join(found[1].upper().split())}-{found[2]}" if found else text.strip() or "unknown"


def licence_ids(texts: Iterable[str]) -> list[str]:
    """The distinct identifiers of several licences, sorted."""
    return sorted({licence_id(text) for text in texts})


def require_licences(records: Iterable[Record], allowed: Sequence[str] | None) -> None:
    """Refuses records of a licence that is not among those allowed; None allows any.

    Raises:
        UserError: It names the first record of another licence.
    """
    if allowed is None:
        return
    identifiers = set(licence_ids(allowed))
    for record in records:
        if licence_id(record.licence) not in identifiers:
            raise UserError(
                f"{record.id}: licence {licence_id(record.licence)} found, expected one of "
                f"data.licences={sorted(identifiers)}; leave that data set out, or add the licence to data.licences"
            )
