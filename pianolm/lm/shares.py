"""Which shares of the training windows are rewritten, and whether the layout of the tokens allows it.

`loader.fill_share` makes fill sequences of windows (`pianolm.tokenizer.fill`), `loader.control_share` gives them
controls (`pianolm.tokenizer.controls`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pianolm.errors import UserError
from pianolm.lm.llama import CONTROL_SHARE, FILL_SHARE, SHARES
from pianolm.tokenizer.config import TokenizerSettings, read_settings, tokenizer_directory
from pianolm.tokenizer.controls import check_controls
from pianolm.tokenizer.fill import check_fill


def check_shares(loader: Mapping[str, Any], tokenizer: TokenizerSettings, group: str = "loader") -> None:
    """Raises UserError where shares add up to more than 1, or the tokens have no ids for one.

    Args:
        loader: Options of the group `loader`.
        tokenizer: Of the tokens to learn from.
        group: How the error calls the options.
    """
    shares = {name: float(loader[name]) for name in SHARES}
    said = {name: f"{group}.{name}={share:g}" for name, share in shares.items()}
    if sum(shares.values()) > 1:
        raise UserError(f"{' and '.join(said.values())} found, expected at most 1 together")
    checks: dict[str, Callable[[], None]] = {
        FILL_SHARE: lambda: check_fill(tokenizer.vocabulary, tokenizer.ties, tokenizer.exact),
        CONTROL_SHARE: lambda: check_controls(tokenizer.vocabulary, tokenizer.exact),
    }
    for name, check in checks.items():
        if shares[name]:
            try:
                check()
            except UserError as error:
                raise UserError(f"{said[name]}: {error}") from error


def check_planned_shares(cfg: Mapping[str, Any], stage: str) -> None:
    """The same of a configuration, before tokens are built for a stage that trains a language model."""
    given = cfg["upstream"]["tokenizer"]
    settings = cfg["tokenizer"]
    if given:
        path = Path(str(given)).expanduser()
        if not path.is_dir():
            return  # the planner says so
        settings = read_settings(tokenizer_directory(path))
    check_shares(cfg[stage]["loader"], TokenizerSettings.from_dict(settings), f"{stage}.loader")
