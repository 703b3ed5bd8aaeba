"""Where models run."""

from __future__ import annotations

import torch

from ovseg_demo.errors import SettingsError


def choose_device(wanted: str) -> str:
    """Turn "auto" into the best device at hand and check that any other can be used.

    Raises:
        SettingsError: the device is not on this machine.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"The device {wanted!r} cannot be used on this machine: use --device auto or cpu."
        ) from error
    return wanted
