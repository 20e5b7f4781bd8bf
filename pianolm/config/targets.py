"""Whether a `_target_` can be found, without importing the packages on the way, which may take seconds."""

from __future__ import annotations

import importlib.util
import re
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_MAKES_NAMES = re.compile(r"import \*|def __getattr__|globals\(\)|__all__ \+=|lazy", re.IGNORECASE)
"""Source of modules that may define names which are not in it."""


def missing_part(target: str) -> str | None:
    """What of a dotted path such as `package.module.Class` cannot be found; None where all may be there.

    Modules are looked up as files. A name in a module is missing where its source neither holds the name nor takes over
    names of other modules.
    """
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return f"{target!r} is not of the form package.module.Class"
    try:
        spec = importlib.util.find_spec(parts[0])
    except ValueError:  # a module without a specification, such as __main__
        return None
    if spec is None:
        return f"there is no module {parts[0]!r}"
    for number, part in enumerate(parts[1:], start=1):
        found = _submodule(spec, ".".join(parts[: number + 1]))
        if found is None:
            return _missing_name(spec, part)
        spec = found
    return f"{target!r} is a module, not a class or function"


def _submodule(spec: ModuleSpec, name: str) -> ModuleSpec | None:
    if (locations := spec.submodule_search_locations) is None:
        return None
    try:
        return PathFinder.find_spec(name, list(locations))
    except KeyError:  # a folder without __init__.py in another one, which would have to be imported first
        return PathFinder.find_spec(name.rpartition(".")[2], list(locations))


def _missing_name(spec: ModuleSpec, name: str) -> str | None:
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    source = Path(spec.origin).read_text("utf-8", errors="replace")
    if re.search(rf"\b{name}\b", source) or _MAKES_NAMES.search(source):
        return None
    return f"the module {spec.name!r} has no {name!r}"
