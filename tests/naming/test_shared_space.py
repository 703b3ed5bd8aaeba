"""The map of words and regions is the best one in two directions, and tells what it keeps."""

from __future__ import annotations

import numpy as np
import pytest

from ovseg_demo.naming.shared_space import project


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_two_dimensions_are_kept_whole() -> None:
    """Differences that lie in a plane come out as they are, whatever the distance of pictures and words."""
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(16, 3)))[0].T
    plain, adapted, words = (rng.normal(size=(n, 2)) for n in (9, 9, 4))
    # Not unit vectors: those would leave the plane.
    regions = {"vanilla": plain @ plane[:2] + 5 * plane[2], "adapted": adapted @ plane[:2] + 5 * plane[2]}
    texts = dict.fromkeys(regions, (words @ plane[:2] - 5 * plane[2]).astype(np.float32))
    space = project({arm: rows.astype(np.float32) for arm, rows in regions.items()}, texts)
    assert space.regions_kept == pytest.approx(1, abs=1e-5) and space.words_kept == pytest.approx(1, abs=1e-5)
    for arm, rows in (("vanilla", plain), ("adapted", adapted)):
        found = space.regions[arm]
        np.testing.assert_allclose(
            np.linalg.norm(found[:, None] - found, axis=2),
            np.linalg.norm(rows[:, None] - rows, axis=2),
            atol=1e-4,
        )
    arrows = np.linalg.norm(space.regions["adapted"] - space.regions["vanilla"], axis=1)
    np.testing.assert_allclose(arrows, np.linalg.norm(adapted - plain, axis=1), atol=1e-4)
    assert not space.words_moved


def test_less_is_kept_of_more_dimensions_and_it_is_told() -> None:
    rng = np.random.default_rng(1)
    regions = {"vanilla": unit(rng.normal(size=(40, 32))), "adapted": unit(rng.normal(size=(40, 32)))}
    words = unit(rng.normal(size=(6, 32)))
    space = project(regions, {"vanilla": words, "adapted": words})
    every = np.concatenate(list(regions.values()))
    every = every - every.mean(axis=0)
    placed = np.concatenate(list(space.regions.values()))
    assert space.regions_kept == pytest.approx((placed**2).sum() / (every**2).sum(), rel=1e-4)
    assert 0.03 < space.regions_kept < 0.4 and 0 < space.words_kept < 1


def test_the_same_photo_gives_the_same_map() -> None:
    rng = np.random.default_rng(2)
    regions = {"vanilla": unit(rng.normal(size=(5, 8)))}
    words = {"vanilla": unit(rng.normal(size=(3, 8)))}
    one, other = project(regions, words), project(regions, words)
    np.testing.assert_array_equal(one.words, other.words)


@pytest.mark.parametrize(("regions", "words"), [(1, 1), (1, 3), (4, 1), (2, 2)])
def test_few_words_and_regions_have_a_place(regions: int, words: int) -> None:
    rng = np.random.default_rng(3)
    features = {"adapted": unit(rng.normal(size=(regions, 8)))}
    space = project(features, {"adapted": unit(rng.normal(size=(words, 8)))})
    assert space.regions["adapted"].shape == (regions, 2) and space.words.shape == (words, 2)
    assert np.isfinite(space.words).all() and 0 <= space.regions_kept <= 1.0001


def test_words_that_the_arms_embed_differently_are_told() -> None:
    rng = np.random.default_rng(4)
    features = {arm: unit(rng.normal(size=(4, 8))) for arm in ("vanilla", "adapted")}
    words = {arm: unit(rng.normal(size=(3, 8))) for arm in features}
    assert project(features, words).words_moved


def test_spaces_of_different_width_have_no_common_map() -> None:
    with pytest.raises(ValueError, match="widths"):
        project({"adapted": np.ones((2, 4), np.float32), "context": np.ones((2, 6), np.float32)}, {})
    with pytest.raises(ValueError, match="at least"):
        project({"adapted": np.ones((0, 4), np.float32)}, {"adapted": np.ones((1, 4), np.float32)})
