"""What the tests of the page share: the real default models, on small photos."""

from __future__ import annotations

import pytest

from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.settings import Settings


@pytest.fixture(scope="session")
def pool() -> ModelPool:
    """The default models; working at 320 pixels keeps a request at a few seconds."""
    return ModelPool(Settings(max_side_px=320, max_photos=4, max_batch_bytes=2_000_000))
