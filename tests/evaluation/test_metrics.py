"""Figures are what their definitions say, agree with an independent implementation, and know their error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from ovseg_demo.evaluation.metrics import (
    PhotoCounts,
    Tally,
    bootstrap_draws,
    class_estimates,
    confusion_matrix,
    differences,
    estimates,
    ratios,
)

IGNORE = 255


def random_maps(seed: int, classes: int, photos: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(truth, prediction) of random size: classes from 0, or 255; from 1, or 0. Not every class occurs."""
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(photos):
        size = tuple(random.integers(1, 12, size=2))
        own = random.choice(classes, size=random.integers(1, classes + 1), replace=False)
        truth = random.choice([*own, IGNORE], size=size).astype(np.uint8)
        pairs.append((truth, random.integers(0, classes + 1, size=size).astype(np.uint16)))
    return pairs


def counted(truth: np.ndarray, predicted: np.ndarray, classes: int) -> PhotoCounts:
    """One photo in which a class is found if it has a pixel."""
    found = np.isin(np.arange(1, classes + 1), predicted)
    return PhotoCounts.of(confusion_matrix(truth, predicted, classes, IGNORE), found)


def tally_of(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> Tally:
    return Tally([counted(truth, predicted, classes) for truth, predicted in pairs])


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 9), photos=st.integers(1, 4))
def test_confusion_iou_and_accuracy_agree_with_torchmetrics(seed: int, classes: int, photos: int) -> None:
    pairs = random_maps(seed, classes, photos)
    truth = torch.from_numpy(np.concatenate([t.ravel() for t, _ in pairs]).astype(np.int64))
    # There, unassigned is one more class behind the others.
    predicted = np.concatenate([p.ravel() for _, p in pairs]).astype(np.int64)
    theirs = torch.from_numpy(np.where(predicted == 0, classes, predicted - 1))

    wanted = MulticlassConfusionMatrix(classes + 1, ignore_index=IGNORE)(theirs, truth).numpy()
    ours = sum(confusion_matrix(t, p, classes, IGNORE) for t, p in pairs)
    np.testing.assert_array_equal(np.roll(ours, -1, axis=1), wanted[:classes])

    if not wanted.any():
        return
    figures = tally_of(pairs, classes).figures()
    jaccard = MulticlassJaccardIndex(classes + 1, average=None, ignore_index=IGNORE)(theirs, truth).numpy()
    shown = wanted.sum(0)[:classes] + wanted.sum(1)[:classes] > 0
    np.testing.assert_allclose(figures["iou"][0][shown], 100 * jaccard[:classes][shown], atol=1e-4)
    assert np.isnan(figures["iou"][0][~shown]).all()
    np.testing.assert_allclose(figures["pixel_accuracy"][0], 100 * np.trace(wanted) / wanted.sum(), atol=1e-9)


def test_miou_divides_by_the_classes_of_truth_or_prediction() -> None:
    truth = np.array([[0, 0, 0, 0, 1, 1, 1, 1]])
    predicted = np.array([[1, 1, 1, 3, 2, 2, 2, 2]])  # class 2 is only predicted, class 3 nowhere
    figures = tally_of([(truth, predicted)], classes=4).figures()
    assert figures["iou"][0].tolist()[:3] == [75.0, 100.0, 0.0]
    assert np.isnan(figures["iou"][0][3])
    assert figures["miou"][0] == pytest.approx((75 + 100) / 3)
    assert figures["pixel_accuracy"][0] == pytest.approx(100 * 7 / 8)
    assert figures["mean_class_accuracy"][0] == pytest.approx((75 + 100) / 2)


def test_pixels_without_truth_count_nowhere() -> None:
    truth = np.array([[0, 0, IGNORE, IGNORE]])
    for said in (0, 1, 2):
        figures = tally_of([(truth, np.array([[1, 1, said, said]]))], classes=2).figures()
        assert (figures["miou"][0], figures["pixel_accuracy"][0], figures["unassigned"][0]) == (100, 100, 0)


def test_unassigned_pixels_miss_their_class_and_count_for_no_other() -> None:
    truth, predicted = np.array([[0, 0, 1, 1]]), np.array([[1, 0, 2, 2]])
    figures = tally_of([(truth, predicted)], classes=2).figures()
    assert figures["iou"][0].tolist() == [50, 100]
    assert figures["unassigned"][0] == 25


def test_present_and_absent_precision_and_recall() -> None:
    nothing = np.zeros((3, 4), dtype=np.int64)
    confusion = nothing.copy()
    confusion[0, 1] = confusion[1, 0] = 5  # shows classes 0 and 1, not 2
    first = PhotoCounts.of(confusion, np.array([True, False, True]))
    second = PhotoCounts.of(nothing, np.array([True, False, False]), uncertain=frozenset({0}))
    figures = Tally([first, second]).figures()
    assert figures["present_recall"][0] == pytest.approx(50)  # 0 of 0, 1
    assert figures["present_precision"][0] == pytest.approx(50)  # 0 of 0, 2; the uncertain one counts nowhere
    assert figures["absent_recall"][0] == pytest.approx(
        100 * 2 / 3
    )  # 1 and 2 of the second, not 2 of the first
    assert figures["absent_precision"][0] == pytest.approx(100 * 2 / 3)  # said absent: 1 of the first as well


def test_top1_over_regions_and_over_classes() -> None:
    confusion = confusion_matrix(np.array([[0, 1]]), np.array([[1, 2]]), 3, IGNORE)
    found = np.ones(3, dtype=bool)
    photos = [
        PhotoCounts.of(confusion, found, regions=np.array([8, 1, 0]), named=np.array([2, 1, 0])),
        PhotoCounts.of(confusion, found, regions=np.array([0, 1, 0]), named=np.array([0, 0, 0])),
    ]
    figures = Tally(photos).figures()
    assert figures["top1"][0] == pytest.approx(30)
    assert figures["top1_mean_per_class"][0] == pytest.approx((25 + 50) / 2)


def test_a_figure_that_nothing_was_counted_for_is_left_out() -> None:
    tally = tally_of(random_maps(0, 4, 3), classes=4)
    assert "miou" in estimates(tally, bootstrap_draws(3, 10, 0))
    assert "top1" not in estimates(tally, bootstrap_draws(3, 10, 0))


def test_a_draw_is_the_figure_of_the_drawn_photos() -> None:
    pairs = random_maps(3, classes=5, photos=6)
    draws = bootstrap_draws(6, 8, seed=1)
    assert (draws.sum(axis=1) == 6).all()
    drawn = tally_of(pairs, 5).figures(draws)
    for row, times in enumerate(draws.astype(int)):
        again = tally_of([pair for pair, n in zip(pairs, times, strict=True) for _ in range(n)], 5).figures()
        for name in ("miou", "pixel_accuracy", "present_recall", "absent_precision"):
            np.testing.assert_allclose(drawn[name][row], again[name][0])


def test_intervals_hold_the_value_and_shrink_with_more_photos() -> None:
    widths = []
    for photos in (20, 320):
        tally = tally_of(random_maps(7, classes=4, photos=photos), classes=4)
        found = estimates(tally, bootstrap_draws(photos, 400, seed=0))["miou"]
        low, high = found.interval
        assert low < found.value < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_an_arm_does_not_differ_from_itself() -> None:
    tally, draws = tally_of(random_maps(5, classes=4, photos=9), classes=4), bootstrap_draws(9, 50, seed=0)
    assert all(e.value == 0 and e.interval == (0, 0) for e in differences(tally, tally, draws).values())
    assert all(e.value == 1 and e.interval == (1, 1) for e in ratios(tally, tally, draws).values())


def test_the_difference_of_arms_on_the_same_photos_is_known_better_than_either() -> None:
    pairs = random_maps(11, classes=3, photos=60)
    better = []
    for truth, predicted in pairs:  # the same answer, with the first row put right
        mended = predicted.copy()
        mended[0] = np.where(truth[0] == IGNORE, mended[0], truth[0] + 1)
        better.append((truth, mended))
    base, tally, draws = tally_of(pairs, 3), tally_of(better, 3), bootstrap_draws(60, 400, seed=0)
    gain = differences(tally, base, draws)["miou"]
    assert gain.value == pytest.approx(tally.figures()["miou"][0] - base.figures()["miou"][0])
    assert gain.interval[0] > 0
    assert ratios(tally, base, draws)["miou"].value > 1


def test_intervals_are_the_same_for_the_same_seed() -> None:
    tally = tally_of(random_maps(2, classes=4, photos=10), classes=4)
    first, second, other = (estimates(tally, bootstrap_draws(10, 100, seed)) for seed in (0, 0, 1))
    assert first == second
    assert first["miou"].interval != other["miou"].interval


def test_every_class_has_its_interval() -> None:
    tally = tally_of(random_maps(2, classes=4, photos=10), classes=5)  # nobody shows the fifth
    found = class_estimates(tally, bootstrap_draws(10, 100, 0))
    assert all(e.interval[0] <= e.value <= e.interval[1] for e in found[:4])
    assert np.isnan(found[4].value)


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [([[0, 3]], [[1, 1]]), ([[0, 1]], [[1, 4]]), ([[0, 1]], [[1, 1, 1]])],
    ids=["class out of range", "prediction out of range", "another size"],
)
def test_maps_that_do_not_belong_together_are_refused(
    truth: list[list[int]], predicted: list[list[int]]
) -> None:
    with pytest.raises(ValueError, match="The"):
        confusion_matrix(np.array(truth), np.array(predicted), 3, IGNORE)
