"""Teaching with fewer steps, folds and places, for tests on the real model."""

from __future__ import annotations

import pytest

from ovseg_demo.teaching import check, crops, teach, tuning

__all__ = ["quick_teaching"]


def quick_teaching(patch: pytest.MonkeyPatch, *, helps: bool) -> None:
    """The same work, a fifth of it, which is too little to learn from; `helps` takes it for enough."""
    patch.setitem(teach.__kwdefaults__, "steps", 8)
    if helps:
        patch.setattr(check.Check, "helps", True)
    for module in (crops, tuning):
        patch.setattr(module, "FOLDS", 2)
    patch.setattr(crops, "PLACES", 16)
    patch.setattr(tuning, "PLACES_AT_ONCE", 8)
