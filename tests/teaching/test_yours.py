"""The arm `yours`: taught prompts belong to one request, whoever shares the model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ovseg_demo.models import YOURS
from ovseg_demo.proposals import Proposals
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
from ovseg_demo.teaching import TaughtPrompts
from tests.tiny_mini import write_mini

SHAPE = (60, 90)


class Discs:
    """Proposes two discs of any photo: their crops have background, which prompts replace."""

    name = "discs"

    def __init__(self) -> None:
        self.begun = 0

    def stream(self, image: NDArray[np.uint8]):  # type: ignore[no-untyped-def]
        self.begun += 1
        ys, xs = np.indices(image.shape[:2])
        yield 0.5
        masks = np.stack([(ys - 30) ** 2 + (xs - middle) ** 2 < 300 for middle in (25, 65)])
        return Proposals.of(masks, np.full(2, 0.9, np.float32))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mini(tmp_path_factory.mktemp("mini"))


@pytest.fixture
def segmenter(weights: Path) -> Segmenter:
    settings = Settings(cache_dir=weights, templates="single")
    return Segmenter(weights, Discs(), settings=settings)


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)


def prompts(segmenter: Segmenter, seed: int) -> TaughtPrompts:
    drawn = np.random.default_rng(seed).normal(0, 0.5, (2, 49, 64)).astype(np.float32)
    return TaughtPrompts(drawn, "tiny", segmenter.weights_id("adapted"), {"names": ["snow"]})


def scores(segmenter: Segmenter, photo: NDArray[np.uint8], arm: str) -> list[tuple[tuple[str, float], ...]]:
    return [region.top for region in segmenter(photo, "snow, zebra, grass", arm).regions]


def test_two_people_and_everybody_else_at_once(segmenter: Segmenter, photo: NDArray[np.uint8]) -> None:
    people = [segmenter.with_prompts(prompts(segmenter, seed)) for seed in (1, 2)]
    work = [(people[0], YOURS), (people[1], YOURS), (segmenter, "adapted"), (people[0], "adapted")]
    alone = [scores(who, photo, arm) for who, arm in work]
    assert alone[0] != alone[1] and alone[0] != alone[2] and alone[2] == alone[3]

    def again(turn: int) -> list[tuple[tuple[str, float], ...]]:
        who, arm = work[turn % 4]
        if turn >= 8:  # nothing is kept of it
            who.photos.clear()
        return scores(who, photo, arm)

    with ThreadPoolExecutor(2) as two:
        assert list(two.map(again, range(24))) == 6 * alone


def test_the_regions_are_found_once_and_the_model_is_not_loaded_again(
    segmenter: Segmenter, photo: NDArray[np.uint8]
) -> None:
    segmenter(photo, "snow, zebra", "adapted")
    mine = segmenter.with_prompts(prompts(segmenter, 1))
    found = mine.compare(photo, "snow, zebra", ("adapted", YOURS))
    assert found.second.arm == YOURS and segmenter.proposer.begun == 1  # type: ignore[attr-defined]
    own, shared = mine.classifier(YOURS).clip, segmenter.classifier("adapted").clip
    assert own.image_tower.trunk is shared.image_tower.trunk  # type: ignore[union-attr]
    assert own.weights_id != shared.weights_id and own.tower_id != shared.tower_id
    assert own.stem_id == shared.stem_id


def test_without_prompts_there_is_no_such_arm(segmenter: Segmenter, photo: NDArray[np.uint8]) -> None:
    segmenter.with_prompts(prompts(segmenter, 1))
    with pytest.raises(Exception, match="yours"):
        segmenter(photo, "snow, zebra", YOURS)
