"""The device that a model is put on, checked before anything is read."""

from __future__ import annotations

import torch

from pianolm.errors import UserError


def checked_device(device: str | torch.device) -> torch.device:
    """The device of a name such as `cpu`, `cuda` or `cuda:1`.

    Raises:
        UserError: There is no such device on this machine.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(
            f"device={str(device)!r} found, expected a device of torch, such as cpu or cuda"
        ) from error
    gpus = torch.cuda.device_count()
    if found.type == "cuda" and (found.index or 0) >= gpus:
        raise UserError(
            f"device={str(device)!r} found, but torch sees {gpus or 'no'} CUDA GPU{'s' if gpus > 1 else ''} on this "
            "machine; use device='cpu'"
        )
    return found
