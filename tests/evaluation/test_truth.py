"""A label map is compared with a result by the evaluation's metrics; what does not fit is one sentence."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ovseg_demo.corrections import CorrectedRegion
from ovseg_demo.errors import CorrectionError, ImageError, VocabularyError
from ovseg_demo.evaluation.metrics import Reliability
from ovseg_demo.evaluation.truth import IGNORE, corrected_truth, judge, read_truth
from ovseg_demo.output.export import export
from ovseg_demo.result import ClassResult, RegionResult, Segmentation

NAMES = ("cow", "sofa", "sky")


def result() -> Segmentation:
    """8 x 6 pixels: cow on the left half, sofa on two columns, two columns unassigned."""
    labels = np.zeros((6, 8), np.uint16)
    labels[:, :4], labels[:, 4:6] = 1, 2
    classes = tuple(
        ClassResult(
            name, ("sofa", "couch") if name == "sofa" else (name,), i + 1, (9 * i, 8, 7), i < 2, 0.4, 0.9
        )
        for i, name in enumerate(NAMES)
    )
    regions = tuple(
        RegionResult(i + 1, (4 * i, 0, 4 * i + 2, 6), 0.3, i + 1, confidence, 0.9, ((NAMES[i], confidence),))
        for i, confidence in enumerate((0.85, 0.35))
    )
    image = np.zeros((6, 8, 3), np.uint8)
    return Segmentation(image, labels, labels.copy(), classes, regions, {}, {}, {}, "adapted")


def png(values: np.ndarray, palette: bool = False) -> bytes:
    picture = Image.fromarray(values)
    if palette:
        picture.putpalette([i % 256 for i in range(768)])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_result_is_right_against_its_own_export() -> None:
    seg = result()
    files = export(seg, ("label-map", "classes"))
    truth = read_truth(files["label_map.png"], seg, files["classes.json"])
    found = judge(seg, truth)
    assert found.pixel_accuracy == 100 and found.miou == 100
    assert (truth.labels == IGNORE).sum() == 12 and not truth.left_out


def test_the_figures_are_those_of_the_evaluation() -> None:
    seg, values = result(), np.full((6, 8), 1, np.uint8)
    values[:, 6:] = 3
    values[0] = 255  # unknown
    found = judge(seg, read_truth(png(values, palette=True), seg))
    # 30 pixels of cow, 20 right, 10 called sofa; 10 of sky, unassigned.
    assert found.pixel_accuracy == pytest.approx(50)
    np.testing.assert_allclose(found.accuracy, [100 * 20 / 30, np.nan, 0])
    np.testing.assert_allclose(found.iou, [100 * 20 / 30, 0, 0])
    assert found.miou == pytest.approx((100 * 20 / 30) / 3)
    assert found.mean_class_accuracy == pytest.approx((100 * 20 / 30) / 2)
    assert found.confusion.tolist() == [[0, 20, 10, 0], [0, 0, 0, 0], [10, 0, 0, 0]]
    assert found.reliability == Reliability((pytest.approx(0.35), pytest.approx(0.85)), (0.0, 1.0), (10, 20))


def test_names_are_matched_with_their_synonyms_and_others_are_left_out() -> None:
    seg, values = result(), np.full((6, 8), 7, np.uint8)
    values[:, 4:], values[3:, 4:] = 9, 2
    names = json.dumps(
        [{"index": 0, "name": None}, {"index": 7, "name": "Cow"}, {"index": 9, "name": "couch"}]
    )
    with pytest.raises(VocabularyError, match=r"number 2, and classes\.json has no name"):
        read_truth(png(values), seg, names.encode())
    truth = read_truth(png(values), seg, json.dumps({"7": "Cow", "9": "couch", "2": "lamp"}).encode())
    assert truth.left_out == {"lamp": 0.25}
    assert np.unique(truth.labels).tolist() == [IGNORE, 0, 1]


def test_sixteen_bits_are_read() -> None:
    seg, values = result(), np.full((6, 8), 3, np.uint16)
    values[0], values[1] = 65535, 0
    truth = read_truth(png(values), seg)
    assert (truth.labels == IGNORE).sum() == 16 and (truth.labels == 2).sum() == 32


@pytest.mark.parametrize(
    ("content", "classes", "error", "told"),
    [
        (b"no picture", None, ImageError, "is no PNG"),
        (png(np.ones((6, 9), np.uint8)), None, ImageError, "is 9 x 6 pixels and the photo 8 x 6"),
        (png(np.zeros((6, 8, 3), np.uint8)), None, ImageError, "in colours"),
        (png(np.ones((6, 8), np.uint8))[:-30], None, ImageError, "damaged|no PNG"),
        (png(np.full((6, 8), 4, np.uint8)), None, VocabularyError, "number 4, and among the words"),
        (png(np.ones((6, 8), np.uint8)), b"{", VocabularyError, "is no JSON"),
        (png(np.ones((6, 8), np.uint8)), b"[3]", VocabularyError, "holds no names"),
        (png(np.ones((6, 8), np.uint8)), b'{"a": "b"}', VocabularyError, "holds no names"),
        (png(np.ones((6, 8), np.uint8)), b'{"1": "lamp"}', VocabularyError, "'lamp' and none of the words"),
        (png(np.zeros((6, 8), np.uint8)), None, VocabularyError, "shows nothing and none"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    content: bytes, classes: bytes | None, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told) as caught:
        read_truth(content, result(), classes)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_huge_picture_is_refused_by_its_header() -> None:
    """Its size is compared before a pixel is decoded."""
    header = png(np.ones((6, 8), np.uint8))
    huge = header[:16] + (60_000).to_bytes(4, "big") * 2 + header[24:]
    with pytest.raises(ImageError):
        read_truth(huge, result())


def test_a_truth_of_another_size_is_an_error_of_the_program() -> None:
    seg = result()
    truth = read_truth(png(np.ones((6, 8), np.uint8)), seg)
    with pytest.raises(ValueError, match=r"The truth is \(6, 4\)"):
        judge(seg, replace(truth, labels=truth.labels[:, :4]))


def box(rows: slice, columns: slice, name: str | None) -> CorrectedRegion:
    mask = np.zeros((6, 8), dtype=np.bool_)
    mask[rows, columns] = True
    return CorrectedRegion.of(mask, name)


def test_only_what_a_person_named_counts_and_the_last_word_is_theirs() -> None:
    """Later regions lie on earlier ones; one without a name and one that nobody asked for count nowhere."""
    seg, every = result(), slice(0, 6)
    truth = corrected_truth(
        seg,
        [
            box(every, slice(0, 2), "Cow"),
            box(every, slice(3, 6), "couch"),
            box(slice(0, 4), slice(4, 6), "cow"),
            box(slice(0, 1), slice(4, 6), None),
            box(slice(1, 2), slice(4, 6), "zebra"),
        ],
    )
    expected = np.full((6, 8), IGNORE)
    expected[:, 0:2], expected[:, 3:6] = 0, 1
    expected[:4, 4:6] = 0
    expected[:2, 4:6] = IGNORE
    np.testing.assert_array_equal(truth.labels, expected)
    assert truth.left_out == {"zebra": pytest.approx(2 / 48)}
    found = judge(seg, truth)
    # Of 16 pixels of cow, 12 are called cow and 4 sofa; of 10 of sofa, 6 cow and 4 sofa.
    assert found.confusion.tolist() == [[0, 12, 4, 0], [0, 6, 4, 0], [0, 0, 0, 0]]
    assert found.pixel_accuracy == pytest.approx(100 * 16 / 26)


@pytest.mark.parametrize(
    ("names", "error", "told"),
    [
        ([], CorrectionError, "No corrected region has a name; name or accept one"),
        ([None], CorrectionError, "No corrected region has a name"),
        (["cow", None], CorrectionError, "No corrected region has a name"),
        (["zebra"], VocabularyError, "name 'zebra' and none of the words .cow, sofa, sky.; type"),
    ],
)
def test_corrections_that_say_nothing_of_the_words_get_a_sentence(
    names: list[str | None], error: type[Exception], told: str
) -> None:
    regions = [box(slice(0, 6), slice(0, 8), name) for name in names]
    with pytest.raises(error, match=told):
        corrected_truth(result(), regions)


def test_corrections_of_another_photo_are_refused() -> None:
    region = CorrectedRegion.of(np.ones((5, 8), dtype=np.bool_), "cow")
    with pytest.raises(CorrectionError, match="of a photo of 8 x 5 and this one has 8 x 6"):
        corrected_truth(result(), [region])
