"""Mask proposals: class-agnostic masks of one image.

proposer = load_proposer("mobile-sam")
proposals = propose(proposer, image)
"""

from __future__ import annotations

from pathlib import Path

from ovseg_demo.errors import SettingsError, UnknownModelError
from ovseg_demo.proposals.base import Proposals, Proposer, propose

__all__ = ["DENSITIES", "PROPOSERS", "Proposals", "Proposer", "load_proposer", "propose"]

PROPOSERS = ("mobile-sam", "sam-vit-b", "sam-vit-l", "sam-vit-h", "maskformer")
DENSITIES = ("low", "normal", "high")
_SAM_SIZE = 1024
# MobileSAM finds more of COCO train2017's segments at 768 than at 1024, in about half the time.
_MOBILE_SAM_SIZE = 768


def load_proposer(
    name: str,
    *,
    device: str = "cpu",
    weights: Path | None = None,
    size: int | None = None,
    density: str = "normal",
) -> Proposer:
    """A proposer with its weights on a device.

    Args:
        name: one of PROPOSERS.
        device: "auto", "cpu", "cuda" or "cuda:1".
        weights: a local checkpoint instead of the one in the model table.
        size: longer side in pixels at which the image is encoded, a multiple of 16 up to 1024; less is faster
            and coarser. The default is 768 for MobileSAM; the others take 1024 only.
        density: one of DENSITIES, how many points are prompted.

    Raises:
        UnknownModelError: no proposer has this name.
        SettingsError: the device, size or density is not to be had.
        ModelError: the weights are missing or wrong.
    """
    import torch

    from ovseg_demo.devices import choose_device
    from ovseg_demo.models import resolve
    from ovseg_demo.proposals.mobile_sam import load_mobile_sam
    from ovseg_demo.proposals.prompting import PLANS
    from ovseg_demo.proposals.sam import load_sam

    if name not in PROPOSERS:
        raise UnknownModelError(f"There is no proposer {name!r}; choose one of {', '.join(PROPOSERS)}.")
    if density not in PLANS:
        raise SettingsError(f"There is no density {density!r}; choose one of {', '.join(DENSITIES)}.")
    default = _MOBILE_SAM_SIZE if name == "mobile-sam" else _SAM_SIZE
    side = default if size is None else size
    if side % 16 or not 64 <= side <= 1024:
        raise SettingsError(f"The proposer's size {side} must be a multiple of 16 from 64 to 1024.")
    place = torch.device(choose_device(device))
    if name != "mobile-sam" and side != _SAM_SIZE:
        raise SettingsError(f"{name} works at size {_SAM_SIZE} only, not {side}; mobile-sam takes others.")
    path = resolve(name).path if weights is None else weights
    if name == "mobile-sam":
        return load_mobile_sam(path, device=place, side=side, plan=PLANS[density])
    return load_sam(name, path, device=place, plan=PLANS[density])
