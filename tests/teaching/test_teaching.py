"""Mask prompts taught with corrections: read, tuned, refused, used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg_demo.clip import load_clip
from ovseg_demo.corrections import CorrectedRegion, apply_corrections
from ovseg_demo.errors import CheckpointError, CorrectionError, SettingsError
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.output.export import export, zipped
from ovseg_demo.progress import run_to_end
from ovseg_demo.teaching import Lesson, Lessons, TaughtPrompts, read_lessons, teach
from ovseg_demo.teaching.check import Check
from ovseg_demo.teaching.crops import other_places
from ovseg_demo.teaching.tuning import logits
from tests.drawn import drawn_result
from tests.tiny_mini import write_mini

SHAPE = (60, 90)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mini(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Classifier:
    return Classifier(load_clip(folder, weights="adapted"))


def photo(seed: int) -> Lesson:
    """Six boxes of two textures: what is striped is called zebra, what is plain snow."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 160, (*SHAPE, 3), dtype=np.uint8)
    corrections = []
    for k in range(6):
        left, top = 30 * (k % 3), 30 * (k // 3)
        width, height = rng.integers(12, 28, 2)
        ys, xs = np.indices(SHAPE)
        # Discs: without background in its crop a region has no token that a prompt could replace.
        mask = ((xs - left - width / 2) / width) ** 2 + ((ys - top - height / 2) / height) ** 2 < 0.25
        if k % 2:
            image[mask] = 250
        else:
            image[mask] = np.where(np.indices(SHAPE)[1][mask] % 6 < 3, 0, 255)[:, None]
        corrections.append(CorrectedRegion.of(mask, "snow" if k % 2 else "zebra"))
    return Lesson(image, tuple(corrections))


@pytest.fixture(scope="module")
def lessons(classifier: Classifier) -> Lessons:
    made = Lessons.of(classifier, [photo(seed) for seed in range(5)], templates="single")
    # Random weights tell nothing from 250 common names: the two names alone, and no other places.
    own = made.named
    return replace(
        made,
        text=made.text[:2].flip(0),
        seen=made.seen[own],
        token_masks=made.token_masks[own],
        rows=made.rows[own],
        photos=made.photos[own],
    )


def exported(lesson: Lesson) -> dict[str, bytes]:
    seg = drawn_result(lesson.image, ["snow", "zebra"], [])
    return export(apply_corrections(seg, lesson.corrections), ("corrections",), "p.jpg")


def test_an_export_is_read_back_as_lessons(tmp_path: Path) -> None:
    one, other = photo(1), photo(2)
    files = {f"{name}/{k}": v for name, own in (("a", one), ("b", other)) for k, v in exported(own).items()}
    (tmp_path / "export.zip").write_bytes(zipped(files))
    read = read_lessons(tmp_path / "export.zip")
    assert [r.corrections for r in read] == [one.corrections, other.corrections]
    assert np.abs(read[0].image.astype(int) - one.image).mean() < 12
    for name, content in files.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    assert [r.corrections for r in read_lessons(tmp_path / "out")] == [one.corrections, other.corrections]


def test_exports_that_cannot_be_used_are_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(CorrectionError, match="is no zip"):
        read_lessons(tmp_path / "text.zip")
    with pytest.raises(CorrectionError, match="cannot be read"):
        read_lessons(tmp_path / "none.zip")
    for name, files, why in (
        ("empty", {"a.txt": b"x"}, r"holds no corrections\.json"),
        ("alone", {"corrections.json": b"{}"}, r"no corrected_photo\.jpg beside"),
        ("damaged", {"corrections.json": b"{", "corrected_photo.jpg": b""}, "is no JSON"),
    ):
        (tmp_path / f"{name}.zip").write_bytes(zipped(files))
        with pytest.raises(CorrectionError, match=why):
            read_lessons(tmp_path / f"{name}.zip")
    other = exported(photo(1)) | {
        "corrected_photo.jpg": exported(
            Lesson(np.zeros((9, 9, 3), np.uint8), (CorrectedRegion.of(np.ones((9, 9), bool), "snow"),))
        )["corrected_photo.jpg"]
    }
    (tmp_path / "other.zip").write_bytes(zipped(other))
    with pytest.raises(CorrectionError, match="photo of 90 x 60 and this one has 9 x 9"):
        read_lessons(tmp_path / "other.zip")


def test_logits_are_those_of_the_arm_itself(classifier: Classifier, lessons: Lessons) -> None:
    clip, lesson = classifier.clip, photo(0)
    own = clip.image_tower.prompts.mask_embedding  # type: ignore[union-attr]
    masks = np.stack([region.mask for region in lesson.corrections])
    features = clip.encode_photo_regions(lesson.image, masks)
    with torch.no_grad():
        found = logits(clip, lessons, own)[:6]
    expected = clip.score_scale * features @ lessons.text.T
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert clip.image_tower.prompts.mask_embedding is own  # type: ignore[union-attr]


def test_teaching_names_more_regions_right_and_leaves_every_weight_as_it_is(
    classifier: Classifier, lessons: Lessons, folder: Path, tmp_path: Path
) -> None:
    before = {key: value.clone() for key, value in classifier.clip.state_dict().items()}
    steps = []
    taught = run_to_end(_watched(teach(classifier, lessons, steps=60), steps))
    assert all(torch.equal(before[key], value) for key, value in classifier.clip.state_dict().items())
    assert taught.facts["right_after"] > taught.facts["right_before"]
    assert steps == sorted(steps) and steps[-1] == 1.0
    taught.save(tmp_path / "prompts.safetensors")
    read = TaughtPrompts.load(tmp_path / "prompts.safetensors")
    assert (read.prompts == taught.prompts).all() and read.facts == taught.facts
    clip = read.arm_of(classifier.clip)
    with torch.no_grad():
        now = logits(clip, lessons, clip.image_tower.prompts.mask_embedding)  # type: ignore[union-attr]
    assert int((now.argmax(1) == lessons.rows).sum()) > taught.facts["right_before"]
    assert clip.weights_id != classifier.clip.weights_id
    assert all(value.grad is None for value in classifier.clip.parameters())


def _watched(steps, fractions):  # type: ignore[no-untyped-def]
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        fractions.append(step.fraction)
        yield step


def test_teaching_that_does_not_help_is_refused(classifier: Classifier, lessons: Lessons) -> None:
    told = r"does not help here: of 30 regions, each named by prompts that had not seen it, (\d+) are right"
    with pytest.raises(CorrectionError, match=told):
        run_to_end(teach(classifier, lessons, steps=0))


def drawn_check(gained: int, lost: int, moved: int = 0) -> Check:
    """30 regions of name 0, of which some change between right and wrong, and 20 other places."""
    named = torch.tensor([0] * 30 + [-1] * 20)
    before, after = torch.zeros(50, 3), torch.zeros(50, 3)
    before[:, 0] = after[:, 0] = 1.0
    before[:gained, 1] = 2.0
    after[gained : gained + lost, 1] = 2.0
    # Of the places, those called 1 may be mistaken like the corrected regions: they do not count.
    before[30:40, 2] = before[40:, 1] = 2.0
    after[30 + moved : 40, 2] = 2.0
    nothing = torch.zeros(50, 0)
    lessons = Lessons(nothing, nothing, named, torch.zeros(3, 4), ("cow",), torch.zeros(50))
    return Check.of(before, after, lessons)


@pytest.mark.parametrize(
    ("gained", "lost", "moved", "helps", "told"),
    [
        (4, 0, 0, True, "26 are right before and 30 after"),
        (3, 0, 0, False, "which chance alone does in 12 of 100 cases"),
        (6, 1, 0, True, "24 are right before and 29 after"),
        (6, 4, 0, False, "which chance alone does in 38 of 100 cases"),
        (1, 4, 0, False, "29 are right before and 26 after"),
        (8, 0, 2, False, "20 % of other places are taken for one of the names"),
    ],
)
def test_more_hits_must_be_more_than_chance_and_cost_nothing_elsewhere(
    gained: int, lost: int, moved: int, helps: bool, told: str
) -> None:
    check = drawn_check(gained, lost, moved)
    assert (check.gained, check.lost) == (gained, lost)
    assert check.helps is helps and told in check.told


def test_too_few_regions_are_refused(classifier: Classifier) -> None:
    few = Lessons.of(classifier, [photo(0), photo(1)], templates="single")
    with pytest.raises(CorrectionError, match="12 corrected regions with a name and teaching needs 20"):
        run_to_end(teach(classifier, few))
    nameless = Lesson(photo(0).image, (CorrectedRegion.of(np.ones(SHAPE, bool), None),))
    with pytest.raises(CorrectionError, match="No corrected region has a name"):
        Lessons.of(classifier, [nameless], templates="single")


def test_an_arm_without_prompts_cannot_be_taught(folder: Path) -> None:
    vanilla = Classifier(load_clip(folder, weights="vanilla"))
    with pytest.raises(SettingsError, match="cannot be taught"):
        Lessons.of(vanilla, [photo(0)], templates="single")


def test_folds_are_whole_photos_where_there_are_enough(lessons: Lessons) -> None:
    folds = lessons.folds()
    assert all(len(set(folds[lessons.photos == number].tolist())) == 1 for number in range(5))
    assert sorted(torch.bincount(folds).tolist()) == [6, 6, 6, 12]
    few = replace(lessons, photos=lessons.photos.clamp(max=2))
    by_name = [torch.bincount(few.folds()[few.rows == row], minlength=4).tolist() for row in (0, 1)]
    assert all(max(counts) - min(counts) <= 1 for counts in by_name)


def test_other_places_hardly_meet_what_is_corrected() -> None:
    corrected = np.zeros((2, 80, 100), bool)
    corrected[0, :, :50] = True
    corrected[1, :20] = True
    places = other_places(corrected, 6)
    assert len(places) == 6
    assert all((place & corrected.any(0)).sum() < 0.2 * place.sum() for place in places)
    assert len(other_places(np.ones((1, 80, 100), bool), 6)) == 0


def test_prompts_of_another_model_or_damaged_ones_are_refused(folder: Path, tmp_path: Path) -> None:
    clip = load_clip(folder, weights="adapted")
    other = TaughtPrompts(np.zeros((2, 49, 64), np.float32), "other", "f" * 64, {})
    with pytest.raises(CheckpointError, match=r"taught to other \(weights ffffffff\) and not to the"):
        other.arm_of(clip)
    wide = TaughtPrompts(np.zeros((2, 49, 65), np.float32), "tiny", clip.weights_id, {})
    with pytest.raises(CheckpointError, match="which is not this model's"):
        wide.arm_of(clip)
    whole = wide.to_bytes()
    for content in (b"", whole[:50], whole[:-4], b"PK" * 40):
        with pytest.raises(CheckpointError, match="no file of taught prompts"):
            TaughtPrompts.from_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        TaughtPrompts.load(tmp_path / "none")
