from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovseg_demo.errors import OutputError
from ovseg_demo.files import file_sha256
from train.data.contact_sheet import CELL_PX, write_contact_sheet
from train.data.pair_folder import PairFolder
from train.data.shards import (
    Pair,
    PairFacts,
    read_manifest,
    read_pairs,
    read_shard,
    shard_bytes,
    write_manifest,
)
from train.data.sources import DataError


def drawn_pair(number: int) -> Pair:
    """A disc in a box of noise; every number another size, noun and score."""
    height, width = 20 + number, 31
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width]
    mask = ((y - height / 2 + 0.5) / height) ** 2 + ((x - width / 2 + 0.5) / width) ** 2 <= 0.25
    facts = PairFacts(
        noun=("dog", "fire hydrant")[number % 2],
        score=number / 10,
        cosine=0.25,
        margin=0.05,
        photo=f"drawn/{number}",
        box=(4, 5, 4 + width, 5 + height),
        photo_size=(100, 120),
        area_fraction=0.05,
        quality=0.9,
    )
    return Pair(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), mask, facts)


def write_folder(folder: Path, shards: list[list[Pair]]) -> Path:
    listed = []
    for number, pairs in enumerate(shards):
        path = folder / f"pairs_{number:06d}.tar"
        path.write_bytes(shard_bytes(pairs, name=path.stem, image_format="png"))
        listed.append({"name": path.name, "pairs": len(pairs), "sha256": file_sha256(path)})
    write_manifest(folder, {"shards": listed})
    return folder


def assert_same(a: Pair, b: Pair) -> None:
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.mask, b.mask)
    assert a.facts == b.facts


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    pairs = [drawn_pair(n) for n in range(5)]
    write_folder(tmp_path, [pairs[:3], [], pairs[3:]])
    again = list(read_pairs(tmp_path))
    assert len(again) == 5
    for before, after in zip(pairs, again, strict=True):
        assert_same(before, after)


@pytest.mark.parametrize("image_format", ["webp", "jpeg"])
def test_lossy_crops_keep_the_mask_exact(tmp_path: Path, image_format: str) -> None:
    pair = drawn_pair(0)
    smooth = Pair(np.full_like(pair.image, 90), pair.mask, pair.facts)
    path = tmp_path / "one.tar"
    path.write_bytes(shard_bytes([smooth], name="one", image_format=image_format))
    (again,) = read_shard(path)
    assert np.array_equal(again.mask, pair.mask)
    assert np.abs(again.image.astype(int) - 90).max() <= 2


def test_the_same_pairs_give_the_same_bytes() -> None:
    pairs = [drawn_pair(n) for n in range(3)]
    assert shard_bytes(pairs, name="a") == shard_bytes(pairs, name="a")


def test_training_reads_the_same_pairs_in_any_order(tmp_path: Path) -> None:
    pairs = [drawn_pair(n) for n in range(5)]
    folder = PairFolder(write_folder(tmp_path, [pairs[:2], [], pairs[2:]]), least_score=0.2)
    assert len(folder) == 3
    for row in (2, 0, 1):
        image, mask = folder.crop(row)
        assert np.array_equal(image, pairs[row + 2].image)
        assert np.array_equal(mask, pairs[row + 2].mask)
    assert [folder.nouns[n] for n in folder.noun_of] == ["dog", "fire hydrant", "dog"]


def test_several_right_names_and_what_a_region_is_a_part_of_are_kept(tmp_path: Path) -> None:
    facts = [
        {"noun": "retriever", "synonyms": ("dog", "golden retriever")},
        {"noun": "wheel", "part_of": ("car", "dog"), "photo_path": "flickr8k/images/1.webp"},
        {"noun": "dog"},
    ]
    pairs = [replace(drawn_pair(n), facts=replace(drawn_pair(n).facts, **one)) for n, one in enumerate(facts)]
    folder = write_folder(tmp_path, [pairs])
    assert [pair.facts for pair in read_pairs(folder)] == [pair.facts for pair in pairs]
    read = PairFolder(folder)
    assert read.nouns == ["dog", "golden retriever", "retriever", "wheel"]  # nothing is a car
    assert read.right.tolist() == [[2, 0, 1], [3, -1, -1], [0, -1, -1]]
    assert read.ignored.tolist() == [[-1], [0], [-1]]
    assert read.noun_of.tolist() == [2, 3, 0]
    assert [place.path for place in read.photos] == ["", "flickr8k/images/1.webp", ""]
    assert read.photos[1].box == (4, 5, 35, 26) and read.photos[1].size == (100, 120)


def test_pairs_with_one_name_are_written_as_before_there_were_synonyms(tmp_path: Path) -> None:
    path = tmp_path / "one.tar"
    path.write_bytes(shard_bytes([drawn_pair(0)], name="one"))
    with tarfile.open(path) as tar:
        member = tar.extractfile("one_000000.json")
        assert member is not None
        written = json.loads(member.read())
    assert set(written) == {
        "noun", "score", "cosine", "margin", "photo", "box", "photo_size", "area_fraction", "quality"
    }  # fmt: skip


def test_an_empty_shard_has_no_pairs(tmp_path: Path) -> None:
    path = tmp_path / "empty.tar"
    path.write_bytes(shard_bytes([], name="empty"))
    assert list(read_shard(path)) == []


def test_a_cut_shard_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.tar"
    content = shard_bytes([drawn_pair(n) for n in range(2)], name="cut")
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(DataError, match=r"cut\.tar"):
        list(read_shard(path))


@pytest.mark.parametrize("name", ["candidate_nouns", "may_be"])
def test_candidate_nouns_are_read_under_their_earlier_name_too(tmp_path: Path, name: str) -> None:
    facts = replace(drawn_pair(0).facts, noun="", candidate_nouns=("dog", "grass"))
    whole = shard_bytes([replace(drawn_pair(0), facts=facts)], name="unnamed_000000")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(whole)) as before, tarfile.open(fileobj=buffer, mode="w") as after:
        for entry in before:
            member = before.extractfile(entry)
            assert member is not None
            content = member.read()
            if entry.name.endswith(".json"):
                content = content.replace(b"candidate_nouns", name.encode())
            entry.size = len(content)
            after.addfile(entry, io.BytesIO(content))
    write_folder(tmp_path, [[drawn_pair(0)]])
    path = tmp_path / "unnamed_000000.tar"
    path.write_bytes(buffer.getvalue())
    assert [pair.facts.candidate_nouns for pair in read_shard(path)] == [("dog", "grass")]
    shard = {"name": path.name, "regions": 1, "sha256": file_sha256(path)}
    write_manifest(tmp_path, {**read_manifest(tmp_path), "unlabeled": [shard]})
    assert list(PairFolder(tmp_path).candidate_nouns) == [("dog", "grass")]


def listed(folder: Path) -> list[tuple[Any, ...]]:
    """All that a folder says of its pairs, and the pixels of one."""
    read = PairFolder(folder)
    rows = zip(read.right.tolist(), read.ignored.tolist(), read.photos, strict=True)
    return [*rows, (read.nouns, read.digest, list(read.candidate_nouns), read.crop(0)[0].tobytes())]


def test_shards_are_read_once_and_then_their_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path, [[drawn_pair(n) for n in range(3)], [drawn_pair(3)]])
    first = listed(folder)
    assert (folder / "index.safetensors").is_file()

    def opened(*args: object) -> None:
        raise AssertionError("a shard was opened")

    monkeypatch.setattr("train.data.pair_index.tarfile.open", opened)
    assert listed(folder) == first


@pytest.mark.parametrize("change", ["another shard", "a shard written again", "a damaged index"])
def test_an_index_of_other_shards_is_made_anew(tmp_path: Path, change: str) -> None:
    folder = write_folder(tmp_path, [[drawn_pair(n) for n in range(3)], [drawn_pair(3)]])
    first = listed(folder)
    index = folder / "index.safetensors"
    before = index.read_bytes()
    if change == "another shard":
        write_folder(tmp_path, [[drawn_pair(3)]])
        assert PairFolder(folder).nouns == ["fire hydrant"]
    elif change == "a shard written again":
        # Of the same size, and what the manifest says of it is not looked at.
        shard = folder / "pairs_000001.tar"
        shard.write_bytes(shard.read_bytes().replace(b"fire hydrant", b"fire station"))
        assert PairFolder(folder).nouns == ["dog", "fire hydrant", "fire station"]
    else:
        index.write_bytes(before[: len(before) // 2])
        assert listed(folder) == first
    assert (index.read_bytes() == before) == (change == "a damaged index")


def test_a_folder_that_cannot_be_written_is_read_without_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_folder(tmp_path, [[drawn_pair(n) for n in range(3)]])

    def refused(path: Path, *args: object) -> None:
        raise OutputError(f"{path} cannot be written.")

    monkeypatch.setattr("train.data.pair_index.write_tensors", refused)
    assert len(PairFolder(folder)) == 3 and not (folder / "index.safetensors").exists()
    assert "listed anew at every start" in caplog.text


def test_a_missing_shard_is_refused_though_the_index_is_there(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [[drawn_pair(n) for n in range(3)]])
    PairFolder(folder)
    (folder / "pairs_000000.tar").unlink()
    with pytest.raises(DataError, match="cannot be read as a shard"):
        PairFolder(folder)


def test_no_tar_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.tar"
    path.write_text("not a tar file")
    with pytest.raises(DataError, match="mine it again"):
        list(read_shard(path))


def test_a_pair_without_its_mask_is_refused(tmp_path: Path) -> None:
    whole = shard_bytes([drawn_pair(0)], name="one")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(whole)) as before, tarfile.open(fileobj=buffer, mode="w") as after:
        for entry in before:
            if not entry.name.endswith(".mask.png"):
                after.addfile(entry, before.extractfile(entry))
    path = tmp_path / "one.tar"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="one_000000 is incomplete"):
        list(read_shard(path))


def test_a_shard_that_changed_since_the_manifest_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, [[drawn_pair(0)]])
    (tmp_path / "pairs_000000.tar").write_bytes(shard_bytes([drawn_pair(1)], name="pairs_000000"))
    with pytest.raises(DataError, match="hash differs"):
        list(read_pairs(tmp_path))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, [[drawn_pair(0)]])
    (tmp_path / "pairs_000000.tar").unlink()
    with pytest.raises(DataError, match=r"pairs_000000\.tar is in the manifest but missing"):
        list(read_pairs(tmp_path))


def test_a_folder_without_a_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mine pairs first"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="not a manifest"):
        read_manifest(tmp_path)


def test_the_contact_sheet_shows_the_asked_number_of_pairs(tmp_path: Path) -> None:
    from PIL import Image

    write_folder(tmp_path, [[drawn_pair(n) for n in range(9)], [drawn_pair(n) for n in range(9, 14)]])
    sheet = tmp_path / "sheet.png"
    assert write_contact_sheet(tmp_path, sheet, count=12, seed=0) == 12
    with Image.open(sheet) as picture:
        assert picture.width > 10 * CELL_PX
        assert picture.height > 2 * CELL_PX
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    assert write_contact_sheet(tmp_path, sheet, count=100, seed=0) == 14
