"""The joint fine-tuning: what a step sees, what moves, what is written, and how it resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.context import DESCRIPTORS, ContextConfig, photo_input, region_cover
from ovseg_demo.clip.context_arm import load_context
from ovseg_demo.devices import fast_dtype
from ovseg_demo.errors import SettingsError
from ovseg_demo.files import file_sha256
from tests.tiny_mini import pool_descriptors
from tests.train.named_scenes import BALL, box_mask, write_named_scenes
from tests.train.synthetic_pairs import curve, write_pairs
from train.core.loss import name_loss, photo_loss, row_mask
from train.data.pair_folder import PairFolder
from train.data.shards import cut_pair, shard_bytes, write_manifest
from train.data.sources import DataError, photo_at
from train.evaluation.curves import read_log
from train.joint.batches import JointBatch, JointPairs, PhotoSampler
from train.joint.model import JointModel
from train.joint.photos import PhotoMaps
from train.joint.settings import JointSettings
from train.joint_finetune import joint_finetune, open_joint_pairs, train_joint_model, write_arms
from train.named_pairs import NamedPairSettings, main
from train.prompt_tune import PromptTuneSettings, prompt_tune

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[3]
SMALL = {"photos": 2, "regions": 3, "captioned": 2, "other_captions": 4, "hidden": 16, "warmup": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_named_scenes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def named_pairs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("named_pairs") / "pairs"
    main(NamedPairSettings(out=out, data=root, image_format="png"))
    return out


@pytest.fixture(scope="module")
def settings(
    root: Path, named_pairs: Path, small_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> JointSettings:
    """A short run; what is kept is shared by the tests."""
    work = tmp_path_factory.mktemp("joint")
    numbers = {**SMALL, "steps": 3, "captions": ("coco_captions",), "rate": 1e-3, "average": 0.5, "views": 2}
    return JointSettings(
        (named_pairs,), work / "out", root, model=str(small_clip), keep=work / "kept", **numbers
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def source(settings: JointSettings, small_clip: Path) -> JointPairs:
    vanilla = load_clip(small_clip, weights="vanilla").compute_in(fast_dtype(torch.device("cpu")))
    folder = PairFolder(*settings.pairs)
    return open_joint_pairs(settings, folder, vanilla, ContextConfig(hidden=16))[0]


@pytest.fixture
def model(settings: JointSettings, source: JointPairs, small_clip: Path) -> JointModel:
    torch.manual_seed(0)
    clip = load_clip(small_clip, weights="vanilla")
    prior = torch.linspace(-1, 0, len(source.folder.nouns))
    config = ContextConfig(hidden=16, dropout=0.4)
    return JointModel(clip, config, prior, caption_weight=0.5, descriptor_dropout=0.3, photo_weight=2)


def written(folder: Path) -> dict[Path, int]:
    """When each kept piece was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


# --- what a step sees -------------------------------------------------------------------------------------


def test_photos_come_as_often_as_their_rare_regions_and_frequent_names_seldom() -> None:
    rng = np.random.default_rng(0)
    photo_of = rng.integers(0, 30, 400)
    noun_of = np.where(rng.random(400) < 0.8, 0, 1 + np.arange(400) % 40)  # noun 0 is in most regions
    sampler = PhotoSampler(photo_of, noun_of, photos=6, regions=4, most_per_noun=20, seed=1)
    seen = np.zeros(400)
    for step in range(300):
        rows = sampler.rows(step)
        photos = photo_of[rows]
        assert len(np.unique(photos)) == 6 and len(np.unique(rows)) == len(rows)
        assert (np.diff(photos) != 0).sum() == 5  # those of a photo lie together
        assert np.bincount(photos).max() <= 4
        seen[rows] += 1
    assert np.array_equal(sampler.rows(7), sampler.rows(7))
    assert not np.array_equal(sampler.rows(7), sampler.rows(8))
    common = noun_of == 0
    assert sampler.weight[common] == pytest.approx(20 / common.sum())
    assert seen[common].mean() < 0.4 * seen[~common].mean()
    few = PhotoSampler(photo_of[:3], np.zeros(3, int), photos=12, regions=12, most_per_noun=60, seed=0)
    assert sorted(few.rows(0)) == [0, 1, 2]


def test_regions_lie_in_their_photo_as_inference_sees_them(
    settings: JointSettings, source: JointPairs, small_clip: Path, root: Path
) -> None:
    clip, folder, config = load_clip(small_clip, weights="vanilla"), source.folder, ContextConfig(hidden=16)
    row = next(row for row, noun in enumerate(folder.noun_of) if folder.nouns[noun] == "red ball")
    place = folder.photos[row]
    image = photo_at(root, place.path).read()
    photo = photo_input(image, clip.crop_recipe, config)
    with torch.no_grad():
        seen = clip.image_tower.stem(photo)  # type: ignore[attr-defined]
    number = int(source.photos.photo_of[row])
    kept = source.photos.map(number)
    assert kept.shape == seen.shape
    assert functional.cosine_similarity(kept.flatten(), seen.flatten(), dim=0) > 0.999
    cover = region_cover(torch.from_numpy(box_mask(BALL))[None], *photo.shape[2:])[0]
    assert torch.allclose(source.photos.cover(row), cover, atol=1 / 255)
    before = written(settings.work)
    PhotoMaps(folder, root, clip.compute_in(fast_dtype(torch.device("cpu"))), config, settings.work)
    assert written(settings.work) == before


def test_a_batch_has_names_parts_views_and_captions(source: JointPairs) -> None:
    rows = np.array([0, 1, 3, 4, 5])  # of two photos, four pairs each
    batch = source.batch(rows, 0)
    assert batch.stems.shape == (5, 88, 14, 14) and batch.share.shape == (5, 7, 7)
    assert [len(cover) for cover in batch.covers] == [3, 2] and len(batch.maps) == 2
    names = [[source.folder.nouns[i] for i in some if i >= 0] for some in batch.right.tolist()]
    assert names[:3] == [["sky"], ["red ball", "ball"], ["band"]]
    assert source.folder.nouns[int(batch.ignored[2, 0])] == "ball"
    assert batch.names.shape == (len(source.folder.nouns), 384)
    assert batch.captions is not None and batch.captions.stems.shape == (2, 88, 14, 14)
    sentences = batch.captions.sentences
    assert len(sentences) > 2
    # Captions come twice a photo, but never those of the photos themselves among the others.
    assert (sentences[:2] @ sentences[2:].T).max() < 0.999
    again, later = source.batch(rows, 0), source.batch(rows, 1)
    assert torch.equal(batch.stems, again.stems) and not torch.equal(batch.stems, later.stems)
    flipped = [source.batch(np.array([0]), step) for step in range(12)]
    views = {tuple(one.stems.flatten()[:50].tolist()) for one in flipped}
    assert len(views) == 4  # two views, each as it is and mirrored
    templates = {tuple(one.names[0, :5].tolist()) for one in flipped}
    assert len(templates) > 2


# --- what is learned --------------------------------------------------------------------------------------


def test_the_loss_is_that_of_both_arms_with_prior_and_captions(model: JointModel, source: JointPairs) -> None:
    batch = source.batch(np.array([0, 1, 3]), 0)
    model.eval()
    with torch.no_grad():
        figures = model(batch, 2.0, amp=False)
        trunk = model.tower.trunk
        patches = trunk.top(batch.stems)
        fine = trunk.top[: trunk.STRIDE_16_BLOCKS](batch.maps[0])
        coarse = trunk.top(batch.maps[0])
        descriptors = pool_descriptors(patches, batch.share, fine[0], coarse[0], batch.covers[0])
        right, ignored = (row_mask(rows, len(batch.names)) for rows in (batch.right, batch.ignored))
        context = model.context_log_scale.exp() * model.head(descriptors) @ model.context_names(batch.names).T
        wanted = name_loss(context + model.prior, right, ignored).mean()
        assert figures["context"].item() == pytest.approx(wanted.item(), rel=1e-4)
        image = functional.normalize(model.tower.from_stem(batch.stems), dim=-1)
        text = functional.normalize(model.text.project(batch.names), dim=-1)
        adapted = model.log_scale.exp() * image @ text.T
        wanted = name_loss(adapted + model.prior, right, ignored).mean()
        assert figures["adapted"].item() == pytest.approx(wanted.item(), rel=1e-4)
        told = 0.5 * (figures["captions"] + 0.5 * figures["context_captions"])
        within = sum(w * photo_loss(one, right, ignored, [3]) for w, one in ((1, context), (0.5, adapted)))
        assert figures["within_photo"].item() == pytest.approx(within.item(), rel=1e-4)  # type: ignore[union-attr]
        told = told + 2 * figures["within_photo"]
        total = figures["adapted"] + figures["context"] + told + 2 * figures["distil"]
        assert figures["loss"].item() == pytest.approx(total.item(), rel=1e-5)
        # It starts as vanilla, whose features the distillation holds it to.
        assert figures["distil"].item() == pytest.approx(0, abs=2e-3)
        without = model(replace(batch, captions=None), 2.0, amp=False)
        assert set(without) == {"loss", "adapted", "context", "within_photo", "top1", "context_top1"}


def test_a_second_run_goes_on_from_tower_and_head_of_the_first(
    model: JointModel, source: JointPairs, small_clip: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        for parameter in (*model.head.parameters(), model.context_text.weight, model.context_log_scale):
            parameter.add_(0.01 * torch.randn_like(parameter))
    clip = load_clip(small_clip, weights="vanilla")
    write_arms(model, clip, tmp_path, weight=0.7)
    later = JointModel(clip, ContextConfig(hidden=16), model.prior, caption_weight=0.5, descriptor_dropout=0)
    batch = source.batch(np.array([0, 1, 3]), 0)
    with torch.no_grad():
        fresh = later.eval()(batch, 1.0, amp=False)["context"].item()
        later.load_head(load_context(tmp_path / "context.safetensors"))
        first, second = (one.eval()(batch, 1.0, amp=False)["context"].item() for one in (model, later))
    # Files hold half precision.
    assert second == pytest.approx(first, rel=1e-3) != pytest.approx(fresh, rel=1e-3)


def test_the_mean_of_two_runs_lies_half_way_in_tower_and_head(
    model: JointModel, small_clip: Path, tmp_path: Path
) -> None:
    clip = load_clip(small_clip, weights="vanilla")
    write_arms(model, clip, tmp_path, weight=0.7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    model.mean_with(load_clip(tmp_path, weights="adapted"), load_context(tmp_path / "context.safetensors"))
    moved = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {"tower.trunk.top.6._project_conv.weight", "head.projection.weight", "log_scale"} <= moved
    for name in moved - {"caption_log_scales"}:
        assert torch.allclose(model.state_dict()[name], before[name] + 0.5, atol=2e-3), name


def test_bfloat16_changes_the_rounding_of_the_loss_and_nothing_else(
    model: JointModel, source: JointPairs
) -> None:
    batch = source.batch(np.array([0, 1, 3]), 0)
    model.eval()
    with torch.no_grad():
        exact, rounded = (model(batch, 1.0, amp=amp) for amp in (False, True))
    assert rounded["loss"].dtype == torch.float32
    assert rounded["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.05)


def test_every_trained_part_has_its_own_rate_and_gets_a_gradient(
    model: JointModel, source: JointPairs, settings: JointSettings
) -> None:
    groups = train_joint_model(model, settings)
    batch: JointBatch = source.batch(np.array([0, 1, 3]), 0)
    model(batch, 1.0, amp=False)["loss"].backward()
    shares = {id(p): group["share"] for group in groups for p in group["params"]}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {id(p) for p in trained.values()} == shares.keys()
    assert all(p.grad is not None for p in trained.values())
    for name, parameter in trained.items():
        if name.startswith("tower.trunk.top."):
            wanted = settings.trunk_rate
        else:
            wanted = settings.tower_rate if name.startswith("tower.") else settings.rate
        assert shares[id(parameter)] == pytest.approx(wanted / settings.rate), name
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    of_text_or_trunk = ("text.", "tower.trunk.stem.", *(f"tower.trunk.top.{i}." for i in range(4)))
    others = {name for name in frozen if not name.startswith(of_text_or_trunk)}
    assert others == {n for n, _ in model.named_parameters() if "_depthwise_conv" in n} - {
        n for n in frozen if n.startswith(of_text_or_trunk)
    }
    assert any("_depthwise_conv" in name for name in others)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert all((p.ndim > 1) == (id(p) in decayed) for p in trained.values())


def test_the_head_learns_without_some_descriptors_of_the_photo_and_never_without_the_crop(
    model: JointModel,
) -> None:
    kept = model.kept_descriptors(4000)
    assert set(kept) == {"photo_32", "photo_16", "geometry"}
    assert all(0.65 < rows.mean() < 0.75 for rows in kept.values())
    descriptors = {name: torch.randn(3, width) for name, width in DESCRIPTORS.items()}
    model.eval()
    assert model.kept_descriptors(3) == {}
    rows = torch.tensor([[1.0], [0.0], [1.0]])
    some = model.head(descriptors, {"photo_32": rows})
    without = {**descriptors, "photo_32": torch.randn(3, 1280)}
    assert torch.equal(some[1], model.head(without, {"photo_32": rows})[1])
    assert torch.allclose(some[[0, 2]], model.head(descriptors)[[0, 2]])


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(settings: JointSettings) -> Path:
    torch.set_num_threads(1)
    joint_finetune(settings)
    return settings.out


@pytest.mark.slow
def test_a_run_writes_both_arms_and_its_log(trained: Path, small_clip: Path) -> None:
    rows = read_log(trained / "log.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {"adapted", "context", "captions", "distil", "top1", "context_top1"} <= rows[0].keys()
    before, after = (
        load_clip(folder, weights=arm).state_dict()
        for folder, arm in ((small_clip, "vanilla"), (trained, "adapted"))
    )
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert any(name.startswith("image_tower.trunk.top.") for name in moved)
    assert any(name.startswith("image_tower.blocks.") for name in moved)
    assert not any(name.startswith(("image_tower.trunk.stem.", "text_tower.")) for name in moved)


@pytest.mark.slow
def test_the_context_arm_that_is_loaded_is_the_one_that_was_trained(
    trained: Path, settings: JointSettings, root: Path, source: JointPairs, small_clip: Path
) -> None:
    clip = load_clip(small_clip, weights="vanilla")
    prior = torch.zeros(len(source.folder.nouns))
    model = JointModel(clip, ContextConfig(hidden=16), prior, caption_weight=0.5, descriptor_dropout=0.0)
    state = torch.load(trained / "state.pt", weights_only=True)
    model.load_state_dict({**state["model"], **state["average"]["values"]})
    model.eval()
    arm = load_clip(trained, weights="context")
    image = photo_at(root, "coco_captions/images/0001.png").read()
    features = arm.encode_photo_regions(image, box_mask(BALL)[None])
    rows = [row for row, place in enumerate(source.folder.photos) if place.path.endswith("0001.png")]
    ball = next(row for row in rows if source.folder.nouns[source.folder.noun_of[row]] == "red ball")
    with torch.no_grad():
        patches = model.tower.trunk.top(source.views[0]["stems"][ball][None].float())
        seen = source.photos.map(int(source.photos.photo_of[ball]))
        fine = model.tower.trunk.top[: model.tower.trunk.STRIDE_16_BLOCKS](seen)
        coarse = model.tower.trunk.top(seen)
        share = source.views[0]["share"][ball][None].float()
        descriptors = pool_descriptors(patches, share, fine[0], coarse[0], source.photos.cover(ball)[None])
        context = model.head(descriptors)
    ours = functional.normalize(features[:, 768:], dim=-1)
    assert functional.cosine_similarity(ours, context).item() > 0.999


@pytest.mark.slow
def test_prompts_are_tuned_on_the_same_features_and_the_head_stays(
    trained: Path, settings: JointSettings, tmp_path: Path
) -> None:
    out = tmp_path / "mpt"
    kept = written(settings.work)
    prompt_tune(
        PromptTuneSettings(
            settings.pairs, out, settings.data, start=trained, model=settings.model, keep=settings.keep,
            batch=4, steps=2, views=settings.views, distil=0.0, prior=0.5, depth=2, warmup=1,
        )
    )  # fmt: skip
    assert written(settings.work) == kept
    before, after = (load_clip(folder, weights="adapted").state_dict() for folder in (trained, out))
    assert after.pop("image_tower.prompts.mask_embedding").shape == (2, 49, 64)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    heads = [load_clip(folder, weights="context") for folder in (trained, out)]
    one, other = (head.head.state_dict() for head in heads)  # type: ignore[attr-defined]
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted_step_for_step(
    settings: JointSettings, tmp_path: Path
) -> None:
    whole = replace(settings, steps=8, save_every=2, out=tmp_path / "whole")
    joint_finetune(whole)
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "train.joint_finetune", "--pairs", *map(str, settings.pairs)]
    command += ["--data", str(settings.data), "--out", str(out), "--model", settings.model]
    command += ["--keep", str(settings.keep), "--steps", "8", "--save-every", "2", "--average", "0.5"]
    command += ["--captions", "coco_captions"]
    for name, value in SMALL.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=environment)
    try:
        end, log = time.monotonic() + 600, out / "log.jsonl"
        while process.poll() is None and time.monotonic() < end:
            if log.exists() and log.read_text().count("\n") >= 3:
                break
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert 3 <= len(read_log(log)) < 8, "it was to be killed on its way"
    joint_finetune(replace(whole, out=out))
    names = ("step", "loss", "adapted", "context", "captions", "rate", "norm")
    assert curve(out, *names) == curve(tmp_path / "whole", *names)
    for file in ("adapted.safetensors", "context.safetensors"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


# --- bad input --------------------------------------------------------------------------------------------


def test_pairs_of_fold_0_are_refused(settings: JointSettings, root: Path, tmp_path: Path) -> None:
    image = photo_at(root, "coco_captions/images/0000.png").read()
    facts = {"score": 1.0, "cosine": 0.0, "margin": 0.0, "quality": 1.0, "photo": "x/0"}
    pair = cut_pair(image, box_mask(BALL), noun="ball", photo_path="coco_captions/images/0000.png", **facts)  # type: ignore[arg-type]
    path = tmp_path / "pairs_000000.tar"
    path.write_bytes(shard_bytes([pair], name=path.stem, image_format="png"))
    write_manifest(tmp_path, {"shards": [{"name": path.name, "pairs": 1, "sha256": file_sha256(path)}]})
    for command in (
        lambda: joint_finetune(replace(settings, pairs=(tmp_path,), out=tmp_path / "out")),
        lambda: prompt_tune(PromptTuneSettings((tmp_path,), tmp_path / "out", root, model=settings.model)),
    ):
        with pytest.raises(DataError, match="of fold 0 of the named regions, which is never trained on"):
            command()


def test_pairs_that_do_not_say_where_their_photos_lie_are_refused(
    settings: JointSettings, tmp_path: Path
) -> None:
    write_pairs(tmp_path / "pairs", 8)
    with pytest.raises(DataError, match="A pair does not say where its photo lies"):
        joint_finetune(replace(settings, pairs=(tmp_path / "pairs",), out=tmp_path / "out", keep=None))


def test_numbers_out_of_range_and_other_towers_are_refused(settings: JointSettings, vit: Path) -> None:
    for change, message in (
        ({"photos": 0}, "--photos must be at least 1, not 0"),
        ({"trunk_rate": -1.0}, "--trunk-rate must not be negative"),
        ({"dropout": 1.0}, "--dropout must be at least 0 and below 1"),
        ({"context_weight": 1.5}, "--context-weight must lie in 0 to 1"),
        ({"rate": 0.0}, "--rate must be above 0"),
    ):
        with pytest.raises(SettingsError, match=message):
            replace(settings, **change)
    with pytest.raises(SettingsError, match="is no ovseg-mini, the only tower with a context head"):
        joint_finetune(replace(settings, model=str(vit)))
