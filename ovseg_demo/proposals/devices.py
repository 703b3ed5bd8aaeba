"""Which number format a device computes fast in."""

from __future__ import annotations

import torch


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
