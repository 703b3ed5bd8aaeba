"""Several photos, one of them bad: a zip of results, nothing lost, nothing unpacked without bounds."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from ovseg_demo.errors import ImageError, ResourceError, VocabularyError
from ovseg_demo.page.batch import BatchStep, run_batch
from ovseg_demo.page.handlers import Request
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.settings import Settings

EXAMPLES = Path(__file__).parents[2] / "examples"


def request(words: str) -> Request:
    return Request(
        photo=None,
        words=words,
        compare=True,
        model=Settings.model,
        proposer=Settings.proposer,
        templates="single",
        merge="default",
        max_side_px=320,
    )


def batch(pool: ModelPool, uploads: list[Path], words: str = "cup, cow") -> list[BatchStep]:
    return list(run_batch([str(path) for path in uploads], request(words), pool))


def small(name: str, folder: Path) -> Path:
    path = folder / name
    Image.open(EXAMPLES / name).resize((160, 120)).save(path)
    return path


def test_photos_and_zips_give_one_zip_and_a_bad_one_is_listed(pool: ModelPool, tmp_path: Path) -> None:
    packed = tmp_path / "photos.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(small("cow.jpg", tmp_path), "../../farm/cow.jpg")
        archive.writestr("__MACOSX/._cow.jpg", b"litter")
        archive.writestr("notes.txt", b"no picture")
    steps = batch(pool, [small("coffee.jpg", tmp_path), packed])
    done = [step.done for step in steps]
    assert done == sorted(done) and set(done) == {0, 1, 2, 3}
    assert any("next: coffee.jpg, finding regions" in step.message for step in steps)
    assert any(step.left_s and "s left" in step.message for step in steps)
    assert len(steps[-1].failures) == 1 and steps[-1].failures[0].startswith("notes.txt: ")
    assert steps[-1].message == "3 of 3 photos done, 1 of them could not be used"
    assert steps[-1].archive is not None
    with zipfile.ZipFile(io.BytesIO(steps[-1].archive)) as results:
        names = results.namelist()
        assert {"001-coffee/overlay.png", "002-cow/label_map.png", "failures.txt"} <= set(names)
        assert not any(".." in name for name in names)
        told = json.loads(results.read("002-cow/result.json"))
        assert told["photo"] == "cow.jpg" and told["settings"]["templates"] == "single"
        assert json.loads(results.read("002-cow/vanilla/result.json"))["arm"] == "vanilla"


def test_a_batch_over_its_time_ends_while_files_are_made(pool: ModelPool, tmp_path: Path) -> None:
    asked, calls = request("cup"), 0

    def over() -> None:
        nonlocal calls
        calls += 1
        raise ResourceError("This took more than 1 seconds and was stopped.")

    with pytest.raises(ResourceError, match="more than 1 seconds"):
        list(run_batch([str(small("cow.jpg", tmp_path))] * 2, asked, pool, over))
    assert calls == 1


def test_too_many_photos_are_told(pool: ModelPool, tmp_path: Path) -> None:
    photo = small("cow.jpg", tmp_path)
    with pytest.raises(ImageError, match="At most 4 photos"):
        batch(pool, [photo] * 5)


def test_an_archive_that_unpacks_to_far_more_is_refused(pool: ModelPool, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("photo.jpg", bytes(30_000_000))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(ImageError, match="more than 2 MB together"):
        batch(pool, [bomb])


def test_a_damaged_archive_is_told(pool: ModelPool, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.zip"
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.write(EXAMPLES / "cow.jpg", "cow.jpg")
    content = bytearray(damaged.read_bytes())
    content[5000:5100] = bytes(100)
    damaged.write_bytes(content)
    with pytest.raises(ImageError, match=r"'damaged\.zip' cannot be read"):
        batch(pool, [damaged])


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_with_damaged_streams_is_told(pool: ModelPool, tmp_path: Path, kind: int) -> None:
    damaged = tmp_path / "damaged.zip"
    with zipfile.ZipFile(damaged, "w", kind) as archive:
        archive.writestr("cow.jpg", bytes(range(256)) * 200)
    content = bytearray(damaged.read_bytes())
    start = content.index(b"cow.jpg") + len(b"cow.jpg")
    content[start + 9 : start + 60] = b"\xa5" * 51
    damaged.write_bytes(content)
    with pytest.raises(ImageError, match=r"'damaged\.zip' cannot be read"):
        batch(pool, [damaged])


def test_an_archive_whose_names_are_no_text_is_told(pool: ModelPool, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.zip"
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("kü.jpg", b"no photo")  # stored as UTF-8, and said to be
    damaged.write_bytes(damaged.read_bytes().replace("ü".encode(), b"\xff\xff"))
    with pytest.raises(ImageError, match=r"'damaged\.zip' cannot be read"):
        batch(pool, [damaged])


def test_nothing_to_do_is_told(pool: ModelPool) -> None:
    with pytest.raises(ImageError, match="no photos yet"):
        batch(pool, [])
    with pytest.raises(VocabularyError):
        batch(pool, [EXAMPLES / "cow.jpg"], words=" ")
