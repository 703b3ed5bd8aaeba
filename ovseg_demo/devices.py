"""Where models run, and in which number type."""

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


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies in it, float32 elsewhere.

    On a CPU that is AVX512-BF16 or AMX; emulated, bfloat16 is slower than float32.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # Both have no public name; a torch without them says no.
        probes = [getattr(torch.cpu, f"_is_{kind}_supported", None) for kind in ("avx512_bf16", "amx_tile")]
        native = any(probe is not None and probe() for probe in probes)
    else:
        native = False
    return torch.bfloat16 if native else torch.float32
