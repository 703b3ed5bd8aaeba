"""Clicks, names, memories and likeness of single regions, by the pipeline with a real proposer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ovseg_demo.corrections import CorrectedRegion
from ovseg_demo.errors import CorrectionError, ProposalError
from ovseg_demo.imaging import load_image, resize_to_side
from ovseg_demo.memory import Memory
from ovseg_demo.naming.hidden_names import hidden_names
from ovseg_demo.naming.ranked_names import RankedName
from ovseg_demo.proposals import Proposals, load_proposer
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
from tests.drawn import box_mask
from tests.tiny_mini import write_mini

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


class Halves:
    """Proposes the two halves of any photo and takes no clicks."""

    name = "halves"

    def stream(self, image: NDArray[np.uint8]):  # type: ignore[no-untyped-def]
        height, width = image.shape[:2]
        yield 0.5
        masks = np.stack(
            [
                box_mask((height, width), 0, 0, width // 2, height),
                box_mask((height, width), width // 2, 0, width, height),
            ]
        )
        return Proposals.of(masks, np.full(2, 0.9, np.float32))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mini(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="module")
def segmenter(weights: Path) -> Segmenter:
    proposer = load_proposer("mobile-sam", size=256, density="low")
    settings = Settings(max_side_px=256, cache_dir=weights, templates="single")
    return Segmenter(weights, proposer, settings=settings)


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    return resize_to_side(load_image(EXAMPLES / "dogs.jpg"), 320)


@pytest.fixture
def mask(photo: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return box_mask(photo.shape[:2], 40, 30, 200, 180)


def test_a_click_on_a_photo_gives_masks_of_its_own_size(
    segmenter: Segmenter, photo: NDArray[np.uint8]
) -> None:
    found = segmenter.regions_at(photo, [(160, 100, True)])
    assert found.masks.shape[1:] == photo.shape[:2] and found.masks[0, 100, 160]
    boxed = segmenter.regions_at(photo, box=(10, 10, 200, 180))
    assert 1 <= len(boxed.masks) <= 3


def test_a_proposer_without_clicks_says_so(weights: Path, photo: NDArray[np.uint8]) -> None:
    plain = Segmenter(weights, Halves(), settings=Settings(cache_dir=weights))
    with pytest.raises(ProposalError, match="halves finds the regions of whole photos only"):
        plain.regions_at(photo, [(5, 5, True)])


def test_masks_are_named_in_every_arm(
    segmenter: Segmenter, photo: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> None:
    ranked = segmenter.name_masks(photo, [mask, ~mask], "dog, Rex")
    assert set(ranked) == {"vanilla", "adapted", "context"}
    for rows in ranked.values():
        assert [len(row) for row in rows] == [5, 5]
        for row in rows:
            assert isinstance(row[0], RankedName)
            shares = [one.confidence for one in row]
            assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1.0001
            assert len({one.name for one in row}) == 5
    untyped = segmenter.name_masks(photo, [mask], "", ["adapted"])["adapted"][0]
    assert len(untyped) == 5 and not any(one.typed for one in untyped)


def test_masks_of_proposals_are_named_as_the_segmentation_names_them(
    segmenter: Segmenter, photo: NDArray[np.uint8]
) -> None:
    small, words = resize_to_side(photo, 256), hidden_names()[:100]
    result = segmenter(small, words, "adapted")
    assert result.masks is not None
    free = [region for region in result.regions if not region.class_index][:5]
    assert free
    masks = [result.masks[region.id - 1] for region in free]
    ranked = segmenter.name_masks(small, masks, words, ["adapted"])["adapted"]
    compared = 0
    for region, row in zip(free, ranked, strict=True):
        told = dict(region.top)
        for one in row:
            if one.name in told:
                compared += 1
                assert one.typed and one.confidence == pytest.approx(told[one.name], abs=1e-4)
    assert compared


def test_corrections_are_never_overruled_and_survive_new_words(
    segmenter: Segmenter, photo: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> None:
    corrections = [
        CorrectedRegion.of(mask, "Rex"),
        CorrectedRegion.of(mask & ~box_mask(mask.shape, 0, 0, 90, 90), None),
    ]
    for words in ("dog, grass", "sky", ""):
        comparison = segmenter.compare(photo, words, corrections=corrections)
        for result in comparison.arms:
            index = next(c.index for c in result.classes if c.name == "Rex")
            taken = corrections[1].mask
            assert (result.label_map[mask & ~taken] == index).all()
            assert (result.label_map[taken] == 0).all()
            assert [r.corrected for r in result.regions].count(True) == 2


def test_a_memory_names_the_region_it_was_made_of(
    segmenter: Segmenter, photo: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> None:
    memory = segmenter.remember(photo, [CorrectedRegion.of(mask, "Rex"), CorrectedRegion.of(mask, None)])
    assert memory.names == ("Rex",) and set(memory.weights) == {"vanilla", "adapted", "context"}
    memory = Memory.from_bytes(memory.to_bytes())
    for arm in memory.weights:
        without = segmenter.name_masks(photo, [mask], "Rex, dog", [arm])[arm][0]
        reminded = segmenter.name_masks(photo, [mask], "Rex, dog", [arm], memory=memory)[arm][0]
        share = {one.name: one.confidence for one in without}.get("Rex", 0.0)
        assert reminded[0].name == "Rex" and reminded[0].confidence > share
    more = segmenter.remember(photo, [CorrectedRegion.of(~mask, "grass")], memory=memory)
    assert more.names == ("Rex", "grass")


def test_a_memory_of_another_model_is_refused(
    segmenter: Segmenter, photo: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> None:
    memory = segmenter.remember(photo, [CorrectedRegion.of(mask, "Rex")], ["adapted"])
    other = Memory("other", {"adapted": "f" * 64}, memory.examples)
    with pytest.raises(CorrectionError, match="made with other"):
        segmenter(photo, "Rex", "adapted", memory=other)
    with pytest.raises(CorrectionError, match="nothing of the arm vanilla"):
        segmenter(photo, "Rex", "vanilla", memory=memory)
    with pytest.raises(CorrectionError, match="made with other"):
        segmenter.remember(photo, [CorrectedRegion.of(mask, "Rex")], memory=other)


def test_the_most_alike_region_is_the_region_itself(segmenter: Segmenter, photo: NDArray[np.uint8]) -> None:
    small = resize_to_side(photo, 256)
    result = segmenter(small, "dog")
    assert result.masks is not None
    alike = segmenter.more_like_this(small, result.masks[2])
    assert alike[0][0] == 3 and alike[0][1] > 0.999
    assert sorted(k for k, _ in alike) == [r.id for r in result.regions]


def test_masks_that_cannot_be_used_are_told(segmenter: Segmenter, photo: NDArray[np.uint8]) -> None:
    with pytest.raises(CorrectionError, match="is empty"):
        segmenter.name_masks(photo, [np.zeros(photo.shape[:2], bool)], "dog")
    with pytest.raises(CorrectionError, match="this one has 213 x 320"):
        segmenter.more_like_this(photo, np.ones((5, 5), bool))
