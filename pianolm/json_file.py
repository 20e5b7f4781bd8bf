"""Files that hold one JSON object: records, settings and network configurations in published directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pianolm.errors import UserError

AS_PUBLISHED = "give the directory as it was published"
"""What to do about a damaged file of a model's directory."""


def read_object(path: Path, remedy: str = AS_PUBLISHED) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: The file.
        remedy: What to do where it cannot be read, for the error message.

    Raises:
        UserError: The file is missing or unreadable, is no JSON, or holds something other than an object.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: {type(content).__name__} found, expected a JSON object; {remedy}")
    return content
