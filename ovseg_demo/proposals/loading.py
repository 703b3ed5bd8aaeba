"""Load a proposer by its name, by a file, or as the one that belongs to a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ovseg_demo.errors import SettingsError, UnknownModelError, quoted
from ovseg_demo.packages import needs_transformers, require_transformers
from ovseg_demo.proposals.base import Proposer
from ovseg_demo.settings import Settings

__all__ = ["DENSITIES", "NAMING_PROPOSERS", "PROPOSERS", "find_proposer", "load_proposer"]

NAMING_PROPOSERS = ("maskformer", "maskformer-r101c")
"""Those that can name their masks themselves: the published segmenters, with queries in CLIP's text space."""
MASKFORMERS = (*NAMING_PROPOSERS, "maskformer-swin-base-coco")
PROPOSERS = ("mobile-sam", "sam-vit-b", "sam-vit-l", "sam-vit-h", *MASKFORMERS)
DENSITIES = ("low", "normal", "high")
_SAM_SIZE = 1024
# MobileSAM finds as many of COCO train2017's segments at 768 as at 1024 (IoU 0.5), in 0.6 of the time.
_MOBILE_SAM_SIZE = 768


def load_proposer(
    name: str,
    *,
    device: str = "cpu",
    weights: Path | None = None,
    size: int | None = None,
    density: str = "normal",
    mask_threshold: float | None = None,
    cache_dir: Path | None = None,
) -> Proposer:
    """Load a proposer with its weights onto a device.

    Args:
        name: one of PROPOSERS, or the path of a SAM's checkpoint, or of a complete OVSeg file, whose
            MaskFormer is taken; hf-hub:OWNER/NAME or a folder for a SAM 2.1 in transformers' form.
        device: "auto", "cpu", "cuda" or "cuda:1".
        weights: a local checkpoint instead of the one in the model table.
        size: longer side in pixels at which the image is encoded, a multiple of 16 up to 1024; less is faster
            and coarser. By default 768 for MobileSAM; the others take their own size only.
        density: one of DENSITIES, how many points a SAM is prompted with.
        mask_threshold: of NAMING_PROPOSERS, whose masks are soft: a pixel belongs to a mask strictly above
            it. By default the published demo's 0.35.
        cache_dir: where downloads are kept; by default `settings.default_cache_dir()`.

    Raises:
        UnknownModelError: no proposer has this name.
        SettingsError: the device, size, density or threshold is not available.
        ModelError: the weights are missing or wrong, or the package transformers is.
    """
    import torch

    from ovseg_demo.devices import choose_device
    from ovseg_demo.models import is_file, resolve
    from ovseg_demo.proposals.mobile_sam import load_mobile_sam
    from ovseg_demo.proposals.prompting import POINT_PROMPT_CONFIGS
    from ovseg_demo.proposals.sam import load_sam
    from ovseg_demo.proposals.sam2 import find_sam2, is_sam2, load_sam2

    if name not in PROPOSERS:
        if weights is None and is_sam2(name):
            weights = find_sam2(name, cache_dir or Settings().cache_dir)
        elif weights is None and is_file(Path(name)):
            weights = Path(name)
            name = _held_by(weights)
        else:
            raise UnknownModelError(
                f"There is no proposer {quoted(name, 200)}; choose one of {', '.join(PROPOSERS)}."
            )
    if density not in POINT_PROMPT_CONFIGS:
        raise SettingsError(f"There is no density {density!r}; choose one of {', '.join(DENSITIES)}.")
    place = torch.device(choose_device(device))
    if name not in PROPOSERS and weights is not None:
        if size is not None:
            raise SettingsError(f"{quoted(name, 200)} works at its own size only, not {size}.")
        second = load_sam2(name, weights, device=place, plan=POINT_PROMPT_CONFIGS[density])
        second.density = density
        second.weights_sha256 = resolve(
            (weights / "model.safetensors").absolute(), cache_dir=cache_dir
        ).sha256
        return second
    default = _MOBILE_SAM_SIZE if name == "mobile-sam" else _SAM_SIZE
    side = default if size is None else size
    if side % 16 or not 64 <= side <= 1024:
        raise SettingsError(f"The proposer's size {side} must be a multiple of 16 from 64 to 1024.")
    if name != "mobile-sam" and side != _SAM_SIZE:
        works_at = "its own size" if name in MASKFORMERS else f"size {_SAM_SIZE}"
        raise SettingsError(f"{name} works at {works_at} only, not {side}; mobile-sam takes others.")
    path, sha256 = weights, ""
    if name in MASKFORMERS:
        require_transformers(name)
    if path is None:
        found = resolve(name, cache_dir=cache_dir)
        path, sha256 = found.path, found.sha256
    proposer: Proposer
    if name in NAMING_PROPOSERS:
        with needs_transformers(name):
            from ovseg_demo.proposals.maskformer import DEMO_THRESHOLD, load_maskformer
        threshold = DEMO_THRESHOLD if mask_threshold is None else mask_threshold
        proposer = load_maskformer(name, path, device=place, mask_threshold=threshold)
    elif name == "maskformer-swin-base-coco":
        with needs_transformers(name):
            from ovseg_demo.proposals.maskformer import load_coco_maskformer
        proposer = load_coco_maskformer(name, path, device=place)
    elif name == "mobile-sam":
        proposer = load_mobile_sam(path, device=place, side=side, plan=POINT_PROMPT_CONFIGS[density])
        proposer.density = density
    else:
        proposer = load_sam(name, path, device=place, plan=POINT_PROMPT_CONFIGS[density])
        proposer.density = density
    proposer.weights_sha256 = sha256 or resolve(path.absolute(), cache_dir=cache_dir).sha256
    return proposer


def _held_by(path: Path) -> str:
    """Name of the proposer in a file of weights; "maskformer" for anything but a SAM."""
    from ovseg_demo.proposals.sam import CONFIGS
    from ovseg_demo.weight_files import read_file

    content = read_file(path)
    if not isinstance(content, Mapping) or not any(str(key).startswith("image_encoder.") for key in content):
        return "maskformer"
    width = getattr(content.get("image_encoder.pos_embed"), "shape", (0,))[-1]
    return next((name for name, config in CONFIGS.items() if config.width == width), "mobile-sam")


def find_proposer(
    model: str | Path, name: str | None, *, device: str = "cpu", settings: Settings | None = None
) -> Proposer:
    """Load the proposer of a model.

    Args:
        model: a name of the model table, or the path of a checkpoint.
        name: as for `load_proposer`; by default the one that the model was published with, or else the
            settings'. "maskformer" with a model given by its path is the segmenter in that file.
        device: see `load_proposer`.
        settings: name the default, the mask threshold and the folder for downloads.

    Raises:
        UnknownModelError, SettingsError, ModelError: see `load_proposer`.
    """
    from ovseg_demo.models import MODELS, is_file

    settings, entry = settings or Settings(), MODELS.get(str(model))
    chosen = name or (entry and entry.proposer) or settings.proposer
    own_file = Path(model) if chosen == "maskformer" and entry is None and is_file(Path(model)) else None
    return load_proposer(
        chosen,
        device=device,
        weights=own_file,
        mask_threshold=settings.mask_threshold,
        cache_dir=settings.cache_dir,
    )
