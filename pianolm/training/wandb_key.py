"""Whether Weights & Biases has a key, told without importing it where that is possible: its import takes seconds."""

from __future__ import annotations

import netrc
import os
from urllib.parse import urlsplit


def server_address() -> str:
    """The address of the W&B server."""
    if address := os.environ.get("WANDB_BASE_URL"):
        return address
    import wandb  # reads its settings files

    return str(wandb.setup().settings.base_url)


def has_key() -> bool:
    """Whether credentials for the server are configured: in the environment, or in .netrc by `wandb login`."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        known = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    if not known.hosts:
        return False
    return known.authenticators(urlsplit(server_address()).hostname or "") is not None
