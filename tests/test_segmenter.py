"""The pipeline: real classes, tiny random weights, masks that are known."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ovseg_demo.caching.text_cache import TextCache
from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.mini import CROP_RECIPE, MiniConfig, MiniImageTower
from ovseg_demo.clip.minilm import MiniTextTower
from ovseg_demo.errors import DownloadError, ImageError, SettingsError, VocabularyError
from ovseg_demo.naming.classifier import Classifier, PhotoAnalysis, PhotoFeatures
from ovseg_demo.progress import Progress, embedding_progress, run_to_end
from ovseg_demo.proposals import Proposals, ProposalStep, find_proposer
from ovseg_demo.result import Arm, Segmentation
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
from tests.hub_server import HubServer


class Quarters:
    """Proposes the four quarters of any photo."""

    name = "quarters"
    calls = 0
    closed = False

    def stream(self, image: NDArray[np.uint8]) -> Generator[float, None, Proposals]:
        self.calls += 1
        height, width = image.shape[:2]
        masks = np.zeros((4, height, width), dtype=bool)
        for k, mask in enumerate(masks):
            top, left = (k // 2) * (height // 2), (k % 2) * (width // 2)
            mask[top : top + height // 2, left : left + width // 2] = True
        try:
            for step in range(4):
                yield step / 4
        except GeneratorExit:
            self.closed = True
            raise
        return Proposals.of(masks, np.full(4, 0.9, dtype=np.float32))


@pytest.fixture(scope="module")
def clip() -> MaskAdaptedCLIP:
    torch.manual_seed(0)
    tower = MiniImageTower(MiniConfig(width=64, layers=2), prompt_depth=2)
    made = MaskAdaptedCLIP(
        tower, MiniTextTower(), embed_dim=768, crop_recipe=CROP_RECIPE, score_scale=20.0, name="tiny"
    ).eval()
    made.text_key = "tiny"
    return made


@pytest.fixture(scope="module")
def texts() -> TextCache:
    """The hidden names are embedded once for all tests."""
    return TextCache(None)


@pytest.fixture
def segmenter(clip: MaskAdaptedCLIP, texts: TextCache) -> Segmenter:
    made = Segmenter("tiny", Quarters(), settings=Settings(max_side_px=64, templates="single"))
    made.add_classifier(Classifier(clip, texts), "adapted")
    made.add_classifier(Classifier(clip, texts), "vanilla")
    return made


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)


def test_the_result_fits_the_photo_and_the_words(segmenter: Segmenter, photo: NDArray[np.uint8]) -> None:
    result = segmenter(photo, "dog, sofa | couch, sky")
    assert isinstance(result, Segmentation)
    assert result.label_map.shape == (80, 120)
    assert [c.name for c in result.classes] == ["dog", "sofa", "sky"]
    assert result.classes[1].synonyms == ("sofa", "couch")
    assert len(result.regions) == 4
    assert set(result.timings) == {"read", "propose", "crop", "embed", "text", "merge", "total"}


def test_any_arms_are_asked_for_and_the_best_is_the_default(
    segmenter: Segmenter, photo: NDArray[np.uint8]
) -> None:
    assert segmenter(photo, "dog, sky").arm == "adapted"
    assert segmenter(photo, "dog, sky", "vanilla").arm == "vanilla"
    results = segmenter.segment_arms(photo, "dog, sky", ("adapted", "vanilla"))
    assert [result.arm for result in results] == ["adapted", "vanilla"]
    assert [arm.arm for arm in segmenter.compare(photo, "dog, sky").arms] == ["vanilla", "adapted"]
    other = segmenter.compare(photo, "dog, sky", ("adapted", "vanilla"))
    assert [arm.arm for arm in other.arms] == ["adapted", "vanilla"]


def test_proposals_are_computed_once_for_both_arms_and_for_new_words(
    segmenter: Segmenter, photo: NDArray[np.uint8]
) -> None:
    first = segmenter.compare(photo, "dog, sky")
    again = segmenter.compare(photo, "cat, grass, water")
    assert segmenter.proposer.calls == 1  # type: ignore[attr-defined]
    assert [r.box for r in first.first.regions] == [r.box for r in again.second.regions]


def test_the_same_request_gives_the_same_label_map(segmenter: Segmenter, photo: NDArray[np.uint8]) -> None:
    first = segmenter(photo, "dog, sky", merge="benchmark")
    other = segmenter(photo[::-1].copy(), "dog, sky", merge="benchmark")
    second = segmenter(photo, "dog, sky", merge="benchmark")
    assert (first.label_map == second.label_map).all()
    assert other.label_map.shape == first.label_map.shape


def test_what_is_not_said_is_as_the_settings_say(tmp_path: Path, hub: HubServer) -> None:
    hub.status = 404
    settings = Settings(model="clip-vit-b-16", device="cpu", cache_dir=tmp_path)
    segmenter = Segmenter.from_pretrained(settings=settings)
    assert (segmenter.model, segmenter.device) == ("clip-vit-b-16", "cpu")
    with pytest.raises(DownloadError) as no_model:
        segmenter.classifier("vanilla")
    with pytest.raises(DownloadError) as no_proposer:
        find_proposer("ovseg-mini", "sam-vit-b", settings=settings)
    for error in (no_model, no_proposer):
        assert f"put it into {tmp_path / 'weights'}" in str(error.value)
    with pytest.raises(SettingsError, match="cuda:7"):
        Segmenter.from_pretrained(settings=Settings(device="cuda:7"))


def test_closing_the_stream_stops_the_proposer(segmenter: Segmenter, photo: NDArray[np.uint8]) -> None:
    steps = segmenter.stream(photo, "dog")
    stages = [next(steps).stage for _ in range(3)]
    steps.close()
    assert stages[:2] == ["read", "propose"]
    assert segmenter.proposer.closed  # type: ignore[attr-defined]


def test_progress_only_moves_forward(segmenter: Segmenter, photo: NDArray[np.uint8]) -> None:
    steps = segmenter.stream_compare(photo, "dog, sky")
    told: list[Progress] = list(steps)
    fractions = [p.fraction for p in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


class QuartersWithMasks(Quarters):
    """Tells of each quarter when it has found it."""

    def stream(self, image: NDArray[np.uint8]) -> Generator[float | ProposalStep, None, Proposals]:
        yield 0.0
        result = yield from super().stream(image)
        for mask in result.masks:
            yield ProposalStep(0.9, mask[None, ::2, ::2])
        return result


def test_regions_are_yielded_as_they_are_found_and_again_when_all_are(
    segmenter: Segmenter, photo: NDArray[np.uint8]
) -> None:
    segmenter.proposer = QuartersWithMasks()
    told: list[Progress] = list(segmenter.stream(photo, "dog, sky"))
    found = [p.masks for p in told if p.stage == "propose" and p.masks is not None]
    assert [masks.shape for masks in found] == [(1, 22, 32)] * 4  # half of the working size
    (all_of_them,) = [p.masks for p in told if p.stage == "embed"]
    assert all_of_them is not None and len(all_of_them) == 4


def test_a_proposer_that_yields_fractions_has_its_regions_shown_at_the_end(
    segmenter: Segmenter, photo: NDArray[np.uint8]
) -> None:
    told: list[Progress] = list(segmenter.stream(photo, "dog, sky"))
    assert [p.stage for p in told if p.masks is not None] == ["embed"]


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (256, 256), (257, 100), (768, 1024)])
def test_regions_on_the_way_are_small(size: tuple[int, int]) -> None:
    masks = embedding_progress(np.ones((3, *size), dtype=bool), 0.7).masks
    assert masks is not None and masks.all()
    assert masks.shape[0] == 3 and 1 <= min(masks.shape[1:]) <= max(masks.shape[1:]) <= 256


def test_progress_can_be_compared_and_printed_whatever_goes_with_it() -> None:
    one = Progress("propose", 0.5, "Finding regions", np.zeros((1, 2, 2), dtype=bool))
    assert one == Progress("propose", 0.5, "Finding regions") and "array" not in repr(one)


@pytest.mark.parametrize(
    ("image", "words", "error"),
    [(b"not a photo", "dog", ImageError), (np.zeros((4, 4, 3), np.uint8), " , ,", VocabularyError)],
)
def test_bad_input_gets_its_own_error(
    segmenter: Segmenter, image: object, words: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        segmenter(image, words)  # type: ignore[arg-type]


def test_analysed_photos_are_bounded_in_bytes_with_all_that_is_kept_of_them(
    segmenter: Segmenter, clip: MaskAdaptedCLIP, texts: TextCache
) -> None:
    segmenter(np.zeros((80, 120, 3), np.uint8), "dog")
    one = segmenter.photos.kept_bytes
    pixels = 80 * 120 * 3 + 42 * 64 * 3 + 4 * 42 * 64
    assert one > pixels + 5 * 768 * 4, "features and stem count, too"
    limits = Settings(max_side_px=64, templates="single", max_analysed_bytes=3 * one)
    small = Segmenter("tiny", Quarters(), settings=limits)
    small.add_classifier(Classifier(clip, texts), "adapted")
    for shade in range(5):
        small(np.full((80, 120, 3), shade, np.uint8), "dog")
    assert len(small.photos) == 3 and small.photos.kept_bytes <= 3 * one


def test_siblings_share_arms_memory_and_the_lock_that_loads_an_arm_once(
    monkeypatch: pytest.MonkeyPatch, clip: MaskAdaptedCLIP, photo: NDArray[np.uint8]
) -> None:
    loads = []

    def slow(*args: Any, **options: Any) -> MaskAdaptedCLIP:
        loads.append(options["weights"])
        time.sleep(0.3)
        return clip

    monkeypatch.setattr("ovseg_demo.analysis.load_clip", slow)
    one = Segmenter("tiny", Quarters(), settings=Settings(max_side_px=64))
    other = one.sibling(Quarters(), Settings(max_side_px=32))
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda segmenter: segmenter.classifier("adapted"), (one, other))
    assert first is second and loads == ["adapted"]
    run_to_end(one.stream_proposals(photo))
    assert run_to_end(other.stream_proposals(photo)).masks.shape[2] == 32, "each with its own analysis"
    assert len(one.photos) == len(other.photos) == 2 and other.photos is one.photos


def test_strictness_finds_less_and_leaves_the_regions_alone(
    segmenter: Segmenter, photo: NDArray[np.uint8]
) -> None:
    easy, plain, hard = (segmenter(photo, "dog, sky, grass", strictness=s) for s in (-60.0, 0.0, 60.0))
    assert len(easy.found) >= len(plain.found) >= len(hard.found) == 0
    assert easy.found and easy.unassigned_fraction <= plain.unassigned_fraction
    assert hard.settings["strictness"] == 60.0
    bars = [one.settings["merge_settings"]["found_threshold"] for one in (plain, hard)]
    assert bars[1] == bars[0] + 60
    assert segmenter.proposer.calls == 1  # type: ignore[attr-defined]


def test_ranking_goes_on_on_the_cpu_when_a_gpu_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Segmenter.from_pretrained(settings=Settings(max_side_px=64), device="cpu")
    made.device = "cuda"  # there is none: what fails is the first look at the regions
    embed, failed = Segmenter.embed, []

    def failing(self: Segmenter, photo: PhotoAnalysis, arm: Arm) -> PhotoFeatures:
        if self.device == "cuda":
            failed.append(arm)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return embed(self, photo, arm)

    monkeypatch.setattr(Segmenter, "embed", failing)
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    photo[16:48, 16:48] = 250
    proposals, fits = run_to_end(made.stream_rank(photo, ["a", "b"], "adapted"))
    assert failed == ["adapted"] and made.device == "cpu" and "GPU failed" in made.notice
    assert fits.shape == (len(proposals), 2)
    np.testing.assert_allclose(fits.sum(axis=1), 1, rtol=1e-5)
