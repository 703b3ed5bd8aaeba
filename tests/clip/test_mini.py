"""ovseg-mini: folded norms change nothing, prompts replace blank patches only, files are checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.mini import MiniConfig, MiniImageTower, mean_patch
from ovseg_demo.clip.minilm import MiniTextTower
from ovseg_demo.clip.patch_trunk import PatchTrunk
from ovseg_demo.errors import CheckpointError
from train.exporting.weights import save_known_names, save_mini

SHAPE = MiniConfig(width=64, layers=3, pooled_branch_width=64)
MAPS = torch.eye(384).repeat(2, 1)


@pytest.fixture(scope="module")
def tower() -> MiniImageTower:
    torch.manual_seed(0)
    made = MiniImageTower(SHAPE, prompt_depth=3).eval()
    torch.nn.init.normal_(made.class_text, std=0.1)
    return made


@pytest.fixture
def folder(tower: MiniImageTower, tmp_path: Path) -> Path:
    save_mini(tmp_path, tower, MAPS, "adapted", score_scale=21.0)
    return tmp_path


def test_folding_the_batch_norms_changes_nothing() -> None:
    torch.manual_seed(1)
    trunk = PatchTrunk().eval()
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    crops = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        before = trunk(crops)
        after = trunk.fold_batch_norms()(crops)
    assert before.shape == (2, 1280, 7, 7)
    assert before.std() > 0.01
    assert torch.allclose(before, after, atol=1e-4)


@pytest.mark.parametrize("size", [(224, 224), (96, 160), (100, 84)])
def test_the_trunk_in_fused_steps_gives_what_its_modules_give(
    tower: MiniImageTower, size: tuple[int, int]
) -> None:
    torch.manual_seed(2)
    trunk, pictures = tower.trunk, torch.randn(2, 3, *size)
    for module in trunk.modules():
        if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            torch.nn.init.normal_(module.bias, std=0.3)  # so that padding is no zero behind a layer
    expected = trunk.top(trunk.stem(pictures)).detach()
    with torch.inference_mode():
        torch.testing.assert_close(trunk(pictures), expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_prompts_act_where_a_patch_is_blank_and_nowhere_else(tower: MiniImageTower) -> None:
    crops = torch.randn(2, 3, 224, 224)
    everything, half = torch.ones(2, 49), torch.ones(2, 49)
    half[:, 25:] = 0
    plain = tower(crops)
    assert torch.allclose(tower(crops, everything), plain, atol=1e-5)
    assert not torch.allclose(tower(crops, half), plain, atol=1e-3)


@torch.inference_mode()
def test_what_lies_under_a_prompt_does_not_matter_after_the_trunk(tower: MiniImageTower) -> None:
    seen = torch.randn(1, 1280, 7, 7)
    other = seen.clone()
    other[:, :, 4:] = torch.randn(1, 1280, 3, 7)
    mask = torch.ones(1, 49)
    mask[:, 28:] = 0
    tower.trunk.top, kept = torch.nn.Sequential(), tower.trunk.top
    try:
        first, second = tower.from_stem(seen, mask), tower.from_stem(other, mask)
    finally:
        tower.trunk.top = kept
    assert torch.allclose(first, second, atol=1e-6)


@torch.inference_mode()
def test_the_pooled_branch_reads_the_mean_of_the_patches_that_count(tower: MiniImageTower) -> None:
    seen, read = torch.randn(2, 1280, 7, 7), torch.zeros(2, 49)
    read[0, :7] = 1
    assert torch.allclose(mean_patch(seen, read)[0], seen[0, :, 0].mean(-1), atol=1e-6)
    assert not mean_patch(seen, read)[1].any()  # a crop without any patch of its region
    belief = tower.classifier(seen.mean((2, 3))).softmax(-1)
    alone = tower.from_mean(seen.mean((2, 3))) - tower.pooled_branch(seen.mean((2, 3)))
    assert torch.allclose(alone, belief @ tower.class_text, atol=1e-5)


@torch.inference_mode()
def test_saved_and_loaded_again_it_says_the_same(tower: MiniImageTower, folder: Path) -> None:
    clip = load_clip(folder)
    assert clip.name == "ovseg-mini"
    assert clip.score_scale == 21.0
    assert clip.has_prompts
    crops, masks = torch.randn(3, 3, 224, 224), torch.ones(3, 224, 224)
    wanted = torch.nn.functional.normalize(tower(crops, torch.ones(3, 49)), dim=-1)
    assert torch.allclose(clip.encode_regions(crops, masks), wanted, atol=5e-3)  # float16 on disk
    assert clip.encode_regions(crops[:0], masks[:0]).shape == (0, 768)


def test_known_names_are_the_features_that_would_be_computed(folder: Path) -> None:
    clip = load_clip(folder)
    save_known_names(folder, clip, templates="single")
    again = load_clip(folder)
    key = ("traffic light", "single")
    assert torch.allclose(again.known_names[key], clip.encode_text(["traffic light"], "single")[0], atol=1e-3)


def test_damaged_known_names_are_told(folder: Path) -> None:
    save_known_names(folder, load_clip(folder), templates="single")
    path = folder / "names.safetensors"
    for damaged in (path.read_bytes()[:200], b"version https://git-lfs.github.com/spec/v1\n"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"names\.safetensors is damaged"):
            load_clip(folder)


def test_known_names_of_another_text_tower_are_not_used(folder: Path, tower: MiniImageTower) -> None:
    save_known_names(folder, load_clip(folder), templates="single")
    save_mini(folder, tower, 2 * MAPS, "adapted", score_scale=21.0)
    assert load_clip(folder).known_names == {}


@pytest.mark.parametrize("problem", ["missing", "unknown", "shape"])
def test_a_file_with_other_tensors_is_refused_by_name(folder: Path, problem: str) -> None:
    path = folder / "adapted.safetensors"
    tensors = load_file(path)
    value = tensors.pop("visual.ln_post.weight")
    if problem == "unknown":
        tensors |= {"visual.ln_post.weight": value, "visual.stranger": value.clone()}
    if problem == "shape":
        tensors["visual.ln_post.weight"] = value[:5].clone()
    save_file(tensors, path)
    wanted = "visual.stranger" if problem == "unknown" else "visual.ln_post.weight"
    with pytest.raises(CheckpointError, match=wanted):
        load_clip(folder)


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"pooled_branch_width": None}, "pooled_branch_width"),
        ({"score_scale": {}}, "a score_scale of adapted"),
    ],
)
def test_a_config_of_another_version_is_told(folder: Path, change: dict[str, object], lost: str) -> None:
    config = json.loads((folder / "config.json").read_text()) | change
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    with pytest.raises(CheckpointError, match=rf"config\.json lacks {lost}; export the model again"):
        load_clip(folder)


def test_a_file_with_other_names_is_told(folder: Path) -> None:
    path = folder / "adapted.safetensors"
    tensors = load_file(path)
    tensors["visual.another_branch"] = tensors.pop("visual.branch_weights")
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"is not an ovseg-mini.*branch"):
        load_clip(folder)


def test_sentences_of_one_meaning_lie_close() -> None:
    vectors = MiniTextTower().sentence_vectors(
        ["a photo of a dog.", "a picture of a puppy.", "a tall building."]
    )
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_the_embedded_weights_are_the_ones_that_were_hashed() -> None:
    folder = Path(__file__).resolve().parents[2] / "checkpoints" / "ovseg-mini"
    config = json.loads((folder / "config.json").read_text())
    sums = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert set(config["score_scale"]) == {p.stem for p in folder.glob("*.safetensors")} - {"names"}
    clip = load_clip(folder / "vanilla.safetensors")
    assert clip.weights_sha256 == sums["vanilla.safetensors"]
    assert clip.known_names


def test_arms_share_the_frozen_part_and_nothing_else(folder: Path, tower: MiniImageTower) -> None:
    adapted = load_clip(folder)
    crops, masks = torch.randn(11, 3, 224, 224), (torch.rand(11, 224, 224) > 0.5).float()
    stem = adapted.compute_stem(crops, masks)
    assert torch.allclose(adapted.encode_stem(stem).features, adapted.encode_regions(crops, masks), atol=1e-5)

    # Another arm: its trained part differs, so much that it says the opposite.
    ends = (tower.proj, tower.class_text, *tower.pooled_branch[-1].parameters())
    with torch.no_grad():
        for end in ends:
            end.neg_()
        save_mini(folder, tower, MAPS, "vanilla", score_scale=21.0)
        for end in ends:
            end.neg_()
    vanilla = load_clip(folder, weights="vanilla")
    assert vanilla.stem_id == adapted.stem_id
    assert torch.allclose(vanilla.encode_stem(stem).features, vanilla.encode_regions(crops, masks), atol=1e-5)
    assert torch.allclose(vanilla.encode_stem(stem).features, -adapted.encode_stem(stem).features, atol=1e-5)

    strange = load_clip(folder)
    with torch.no_grad():
        next(iter(strange.image_tower.stem_weights())).mul_(1.5)  # type: ignore[attr-defined]
    assert strange.stem_id != adapted.stem_id


def test_no_regions_are_no_error_for_the_shared_part(folder: Path) -> None:
    clip = load_clip(folder)
    stem = clip.compute_stem(torch.zeros(0, 3, 224, 224), torch.zeros(0, 224, 224))
    assert clip.encode_stem(stem).features.shape == (0, 768)


def test_files_from_before_the_stem_was_cut_earlier_still_load(folder: Path) -> None:
    now = load_clip(folder).state_dict()
    path = folder / "adapted.safetensors"
    tensors, stem = load_file(path), "visual.trunk.stem."
    earlier = {f"visual.trunk.top.{i}.": f"{stem}{i + 14}." for i in range(9)}
    earlier |= {f"visual.trunk.top.{i + 9}.": f"visual.trunk.top.{i}." for i in range(4)}

    def then(key: str) -> str:
        start = next((new for new in earlier if key.startswith(new)), "")
        return earlier.get(start, "") + key.removeprefix(start)

    save_file({then(key): value for key, value in tensors.items()}, path)
    assert any(key.startswith(f"{stem}22.") for key in load_file(path))
    loaded = load_clip(folder).state_dict()
    assert loaded.keys() == now.keys()
    assert all(torch.equal(loaded[key], now[key]) for key in now)


def test_the_embedded_vanilla_arm_says_what_it_said_before_the_stem_was_cut_earlier() -> None:
    random = torch.Generator().manual_seed(7)
    crops, masks = torch.rand(2, 3, 224, 224, generator=random) * 2 - 1, torch.zeros(2, 224, 224)
    masks[:, :100, :150] = 1
    features = load_clip("ovseg-mini", weights="vanilla").encode_regions(crops, masks)
    before = [0.02348, -0.007716, 0.004204, 0.006237, 0.008568, -0.020214, -0.004907, 0.057659]
    assert torch.allclose(features[0, ::96], torch.tensor(before), atol=1e-5)


@torch.inference_mode()
def test_the_trunk_gives_a_photo_of_any_shape_two_maps(tower: MiniImageTower) -> None:
    photo = torch.randn(1, 3, 96, 160)
    fine, coarse = tower.trunk.maps(photo)
    assert fine.shape == (1, 120, 6, 10) and coarse.shape == (1, 1280, 3, 5)
    assert torch.allclose(coarse, tower.trunk(photo), atol=1e-6)
    assert tower.stem(torch.zeros(1, 3, 224, 224)).shape == (1, 88, 14, 14)
