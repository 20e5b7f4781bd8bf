"""Licences of pieces under one name each, what they allow, and the refusal of what they do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pianolm.errors import UserError

if TYPE_CHECKING:
    from pianolm.data.sources.base import Record

_CREATIVE_COMMONS = re.compile(r"^(?:cc|creative commons)[ -]+([a-z0-9 -]+?)[ -]+(\d\.\d)$")
USES = ("research", "commercial")
"""Values of `export.use`."""
NO_LICENCE = "none needed"
"""First words of what stands in place of a licence where a program composed the music."""
_FREE = frozenset({"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "Public-Domain"})
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


def require_use(licences: Iterable[str], use: str, source: str) -> None:
    """Refuses to pass on a model where a licence of the music that it learned from forbids it.

    Args:
        licences: As `licence_ids` returns them.
        use: `research`, or `commercial`, for which every licence must be known to allow it.
        source: How the error calls the model.

    Raises:
        UserError: A licence allows no derivatives, or no commercial use.
    """
    names = sorted(licences)
    if fixed := [name for name in names if "ND" in name.split("-")]:
        raise UserError(
            f"{source}: learned from music under {', '.join(fixed)}, which may not be passed on in another form; train "
            "without it (data.licences=[…])"
        )
    if use == "commercial" and (refused := [name for name in names if not _allows_commercial_use(name)]):
        raise UserError(
            f"export.use=commercial: {source} learned from music under {', '.join(refused)}, which is not known to "
            "allow commercial use; use export.use=research, or train on other data (data.licences=[MIT, CC0-1.0, …])"
        )


def _allows_commercial_use(name: str) -> bool:
    return _is_free(name) or (name.startswith("CC-BY") and not {"NC", "ND"} & set(name.split("-")))


def _is_free(name: str) -> bool:
    return name in _FREE or name.startswith(NO_LICENCE)


def model_licence(licences: Iterable[str]) -> str:
    """A licence for a model that asks for no less than those of its data, as the Hugging Face hub spells it.

    `mit` where they ask for nothing, one of Creative Commons where these do, and `other` where one of them is not known
    or two of them cannot be met together.
    """
    asking = [name for name in licences if not _is_free(name)]
    if not asking:
        return "mit"
    if not all(name.startswith("CC-BY") for name in asking):
        return "other"
    parts = [set(name.split("-")[1:-1]) for name in asking]
    together = set().union(*parts)
    if any("SA" in part and part != together for part in parts):
        return "other"  # share-alike wants its own terms and no further ones
    return "-".join(["cc", *(part.lower() for part in ("BY", "NC", "ND", "SA") if part in together), "4.0"])
