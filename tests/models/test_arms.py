"""Which arms a model has: by the table, by the files of a folder, or by the name of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovseg_demo.errors import ModelError
from ovseg_demo.models import (
    ARMS,
    COMPARED,
    MODELS,
    arms_of,
    chosen_arms,
    compared_arms,
    default_arm,
    own_arms,
    resolve,
)


def test_the_best_arm_comes_last_and_is_the_default() -> None:
    assert own_arms("clip-vit-b-16") == ("vanilla",) and default_arm("clip-vit-b-16") == "vanilla"
    assert default_arm("ovseg-vit-l-14") == default_arm("ovseg-swinb-vit-l-14") == "adapted"
    order = list(ARMS)
    for entry in MODELS.values():
        assert [order.index(arm) for arm in entry.arms] == sorted(order.index(arm) for arm in entry.arms)


def test_every_clip_sees_the_photo_too_with_or_without_training(tmp_path: Path) -> None:
    for entry in MODELS.values():
        assert ("context" in entry.arms) == (entry.kind == "clip")
    assert MODELS["ovseg-mini"].part_of("context") == "context"
    assert MODELS["ovseg-vit-l-14"].part_of("context") == "vanilla"
    (tmp_path / "vanilla.safetensors").touch()
    assert arms_of(tmp_path) == ("vanilla", "context") and default_arm(tmp_path) == "vanilla"
    (tmp_path / "vanilla.safetensors").rename(tmp_path / "adapted.safetensors")
    assert arms_of(tmp_path) == ("adapted",)


def test_a_listed_arm_whose_file_is_missing_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert arms_of("ovseg-mini") == ("vanilla", "adapted", "context")
    for place in ("REPOSITORY", "PACKAGE"):
        monkeypatch.setattr(f"ovseg_demo.models.local.{place}", tmp_path)
    with pytest.raises(ModelError, match=r"ovseg-mini/context\.safetensors are missing"):
        resolve("ovseg-mini", "context", cache_dir=tmp_path)


def test_the_arms_of_a_folder_are_the_files_in_it(tmp_path: Path) -> None:
    for arm in ("context", "vanilla", "adapted"):
        (tmp_path / f"{arm}.safetensors").touch()
    assert arms_of(tmp_path) == ("vanilla", "adapted", "context") and default_arm(tmp_path) == "context"
    (tmp_path / "context.safetensors").unlink()
    assert default_arm(tmp_path) == "adapted" and compared_arms(tmp_path) == COMPARED
    (tmp_path / "adapted.safetensors").unlink()
    assert own_arms(tmp_path) == compared_arms(tmp_path) == ("vanilla",)


def test_a_file_is_one_arm_and_what_is_left_of_it_without_prompts() -> None:
    assert arms_of("some/file.pt") == ("vanilla", "adapted", "context")
    assert default_arm("some/file.pt") == "adapted"
    assert arms_of("runs/context.safetensors") == ("context",)


def test_both_all_and_names_mean_arms_each_once(tmp_path: Path) -> None:
    for arm in ("vanilla", "adapted", "context"):
        (tmp_path / f"{arm}.safetensors").touch()
    assert chosen_arms(["both"], tmp_path) == COMPARED
    assert chosen_arms(["all"], tmp_path) == ("vanilla", "adapted", "context")
    assert chosen_arms(["context", "both", "no-prompts"], tmp_path) == (
        *("context", "vanilla", "adapted", "no-prompts"),
    )
    assert chosen_arms([], tmp_path) == ("context",)
    with pytest.raises(ModelError, match=r"no arm called 'best'; choose from vanilla, .*, both, all"):
        chosen_arms(["best"], tmp_path)
