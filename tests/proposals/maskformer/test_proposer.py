"""MaskFormer proposes; one mask or none are as good as many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg_demo.errors import ProposalError, SettingsError
from ovseg_demo.merging import MergeSettings, Scores, merge
from ovseg_demo.proposals import Proposals, SizedProposer, load_proposer, propose, working_image
from ovseg_demo.proposals.maskformer import MaskFormerProposer
from ovseg_demo.proposals.maskformer.proposer import by_area, working_size
from ovseg_demo.proposals.maskformer.weights import load_segmenter
from ovseg_demo.proposals.queries import Queries
from tests.tiny_full import save_full

IMAGE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_full(tmp_path_factory.mktemp("full") / "full.pth")


@pytest.fixture(scope="module")
def proposer(checkpoint: Path) -> MaskFormerProposer:
    network, no_object = load_segmenter(checkpoint)
    return MaskFormerProposer(
        "maskformer", network, no_object, device=torch.device("cpu"), mask_threshold=0.4, short_side=64
    )


@pytest.fixture(scope="module")
def found(proposer: MaskFormerProposer) -> Proposals:
    return propose(proposer, proposer.working_image(IMAGE))


def test_every_mask_knows_its_query(found: Proposals) -> None:
    queries = found.queries
    assert queries is not None and 0 < len(found) <= len(queries) == 7
    soft = queries.soft_masks().numpy()
    assert soft.shape == (7, 64, 90)
    for mask, quality, number in zip(found.masks, found.quality, queries.index, strict=True):
        assert np.array_equal(mask, soft[number] > 0.4)
        assert quality == pytest.approx(soft[number][mask].mean(), abs=1e-5)
    assert set(range(7)) - set(queries.index) == {n for n in range(7) if not (soft[n] > 0.4).any()}
    assert (np.diff(found.masks.sum(axis=(1, 2))) <= 0).all()


def test_the_best_masks_keep_their_queries(found: Proposals) -> None:
    best = found.best(2)
    assert len(best) == 2 and best.queries is not None and found.queries is not None
    soft = best.queries.soft_masks().numpy()
    for mask, number in zip(best.masks, best.queries.index, strict=True):
        assert np.array_equal(mask, soft[number] > 0.4)


def test_masks_come_at_the_size_of_any_picture(proposer: MaskFormerProposer) -> None:
    proposals = propose(proposer, IMAGE)
    assert proposals.masks.shape[1:] == IMAGE.shape[:2]
    assert proposals.queries is not None and proposals.queries.inner == (64, 90)
    assert proposals.queries.padded == (64, 96)


def test_photos_are_resized_to_the_size_of_the_segmenter(proposer: MaskFormerProposer) -> None:
    assert isinstance(proposer, SizedProposer)
    assert working_image(proposer, IMAGE, 32).shape == (64, 90, 3)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((480, 640), (640, 853)),
        ((375, 500), (640, 853)),
        ((1000, 5000), (512, 2560)),
        ((4000, 3000), (853, 640)),
        ((640, 640), (640, 640)),
        ((1, 3000), (1, 2560)),
    ],
)
def test_working_sizes_are_the_published_ones(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert working_size(*size) == wanted


def test_progress_rises_and_closing_stops_the_work(proposer: MaskFormerProposer) -> None:
    steps = proposer.stream(IMAGE)
    assert [next(steps), next(steps)] == [0.0, 0.8]
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)


def test_a_complete_file_is_a_proposer_by_its_path(checkpoint: Path) -> None:
    proposer = load_proposer(str(checkpoint), mask_threshold=0.4)
    assert (proposer.name, proposer.mask_threshold) == ("maskformer", 0.4)
    assert load_proposer("maskformer", weights=checkpoint).mask_threshold == 0.35


def test_wrong_requests_are_told(checkpoint: Path, proposer: MaskFormerProposer) -> None:
    with pytest.raises(SettingsError, match="own size only, not 512"):
        load_proposer("maskformer", weights=checkpoint, size=512)
    with pytest.raises(SettingsError, match=r"threshold is 1\.5"):
        load_proposer("maskformer", weights=checkpoint, mask_threshold=1.5)
    with pytest.raises(ProposalError, match="uint8"):
        propose(proposer, IMAGE.astype(np.float32))


# --- few masks -------------------------------------------------------------------------------------------


def few(valid: int, queries: int = 3) -> tuple[Proposals, Scores]:
    """Three queries, of which `valid` have a pixel: the left third, the middle, the right."""
    logits = np.full((queries, 4, 6), -9.0, dtype=np.float32)
    for number in range(valid):
        logits[number, :, 2 * number : 2 * number + 2] = 9
    soft = Queries(
        logits=logits,
        padded=(16, 24),
        inner=(16, 24),
        size=(16, 24),
        mask_threshold=0.4,
        embeddings=np.ones((queries, 8), dtype=np.float32),
        no_object=np.ones(8, dtype=np.float32) / 8**0.5,
        index=np.arange(queries),
    )
    masks, certain = soft.hard_masks(0.4)
    order = by_area(masks)
    proposals = replace(Proposals.of(masks[order], certain[order]), queries=replace(soft, index=order))
    none = np.zeros(0, dtype=np.float32)
    scores = Scores(
        typed=np.tile(np.array([[2, 1]], dtype=np.float32), (valid, 1)),
        hidden=np.zeros((valid, 0), dtype=np.float32),
        photo_typed=none,
        photo_hidden=none,
        others=np.zeros(valid, dtype=np.float32),
        queries=np.tile(np.array([[3, 1, 0, 0]], dtype=np.float32), (queries, 1)),
    )
    return proposals, scores


@pytest.mark.parametrize("rule", ["benchmark", "published-demo"])
@pytest.mark.parametrize("ensemble", [0.0, 0.7])
class TestFewMasks:
    def test_one_valid_mask(self, rule: str, ensemble: float) -> None:
        proposals, scores = few(valid=1)
        assert len(proposals) == 1
        merged = merge(rule, scores, proposals, ("a", "b"), MergeSettings(), ensemble=ensemble, size=(32, 48))
        assert merged.label_map.shape == (32, 48)
        assert (merged.label_map[:, :12] == 1).all() and merged.region_map[0, 0] == 1
        if rule == "published-demo":
            assert (merged.label_map[:, 24:] == 0).all()

    def test_no_valid_mask(self, rule: str, ensemble: float) -> None:
        proposals, scores = few(valid=0)
        assert len(proposals) == 0
        merged = merge(rule, scores, proposals, ("a", "b"), MergeSettings(), ensemble=ensemble, size=(32, 48))
        assert not merged.region_map.any() and merged.probabilities.shape == (0, 2)
        # Soft masks without a pixel still take part where the segmenter names them.
        speaks = ensemble > 0 and rule == "benchmark"
        assert bool(merged.label_map.any()) == speaks

    def test_one_name(self, rule: str, ensemble: float) -> None:
        proposals, scores = few(valid=2)
        one = replace(scores, typed=scores.typed[:, :1], queries=scores.queries[:, [0, 2, 3]])
        merged = merge(rule, one, proposals, ("a",), MergeSettings(), ensemble=ensemble, size=(16, 24))
        assert merged.found.tolist() == [True] and (merged.label_map[:, :6] == 1).all()


def test_an_ensemble_needs_a_segmenter_and_a_published_rule() -> None:
    proposals, scores = few(valid=2)
    names, settings = ("a", "b"), MergeSettings()
    with pytest.raises(SettingsError, match="belongs to the published rules"):
        merge("default", scores, proposals, names, settings, ensemble=0.5)
    with pytest.raises(SettingsError, match="names its own masks in the same text space"):
        merge("benchmark", replace(scores, queries=None), proposals, names, settings, ensemble=0.5)
