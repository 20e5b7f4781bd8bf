"""Options of passing a model on."""

from __future__ import annotations

from dataclasses import dataclass

from pianolm.config.option import option


@dataclass
class ExportConfig:
    """What stage=export writes, and where it goes."""

    use: str = option(
        "research",
        "What the licences of the music that the model learned from must allow; commercial refuses those that are not "
        "known to allow it.",
        choices=("research", "commercial"),
    )
    push: str | None = option(
        None, "Name on the Hugging Face hub, as user/name, to upload to; a new place there is private."
    )
