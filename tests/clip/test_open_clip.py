"""Models of open_clip by name, repository and folder, held against open_clip's own; tiny random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.open_clip_loading import empty_model
from ovseg_demo.clip.pooled_arm import PooledCLIP
from ovseg_demo.clip.towers import ClipImageTower, OpenClipImageTower
from ovseg_demo.errors import CheckpointError, DownloadError, ModelError, UnknownModelError
from ovseg_demo.models import arms_of, default_arm
from ovseg_demo.naming.classifier import Classifier, PhotoFeatures
from ovseg_demo.regions import normalise_pixels
from ovseg_demo.vocabulary import Vocabulary
from tests.hub_server import HubServer

NAMES = ["cat", "a very long name of a thing that nobody has ever seen in any of the photos there are"]
TEXT = {"context_length": 12, "width": 64, "heads": 2, "layers": 2}
VIT: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "head_width": 32, "layers": 2},
    "text_cfg": TEXT,
}
SIGMOID = {**deepcopy(VIT), "custom_text": True, "init_logit_bias": -9.0, "init_logit_scale": 4.7}
SIGMOID["vision_cfg"]["pool_type"] = "avg"
RESNET = {**VIT, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}}
PIXELS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


def _model(config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return empty_model(config, "tiny")


def _folder(path: Path, config: dict[str, Any], model: Any = None) -> Path:
    path.mkdir(exist_ok=True)
    record = {"model_cfg": config, "preprocess_cfg": PIXELS}
    (path / "open_clip_config.json").write_text(json.dumps(record), "utf-8")
    save_file((model or _model(config)).state_dict(), path / "open_clip_model.safetensors")
    return path


@pytest.mark.parametrize("config", [VIT, SIGMOID, RESNET], ids=["class token", "sigmoid", "ResNet"])
@torch.no_grad()
def test_crops_names_and_logits_are_open_clips_own(config: dict[str, Any], tmp_path: Path) -> None:
    model = _model(config)
    clip = load_clip(_folder(tmp_path / "tiny", config, model))
    size = config["vision_cfg"]["image_size"]
    crops, masks = torch.randn(3, 3, size, size), torch.ones(3, size, size)
    image = clip.encode_regions(crops, masks)
    torch.testing.assert_close(image, model.encode_image(crops, normalize=True))
    tokens = open_clip.SimpleTokenizer(context_length=12)(NAMES)
    text = model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(clip.encode_sentences(NAMES), text)
    own = torch.from_numpy(clip.logits(image.numpy(), text.numpy()))
    torch.testing.assert_close(own, model.get_logits(crops, tokens)[0], rtol=1e-4, atol=1e-4)
    assert (clip.score_bias == -9) == ("init_logit_bias" in config)
    pixels = torch.tensor([255.0, 0, 128])[:, None, None]
    normal = (pixels / 255 - torch.tensor(PIXELS["mean"])[:, None, None]) / torch.tensor(PIXELS["std"])[
        :, None, None
    ]
    torch.testing.assert_close(normalise_pixels(pixels, clip.crop_recipe), normal)


def test_a_sigmoid_models_bias_is_in_every_logit_and_changes_no_share(tmp_path: Path) -> None:
    clip = load_clip(_folder(tmp_path / "tiny", SIGMOID))
    classifier, vocabulary = Classifier(clip), Vocabulary.of(["dog", "grass"])
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = classifier.score(PhotoFeatures(rows[:3], rows[3], {}), vocabulary, "single")
    clip.score_bias = 0.0
    without = classifier.score(PhotoFeatures(rows[:3], rows[3], {}), vocabulary, "single")
    for name in ("typed", "hidden", "photo_typed", "photo_hidden", "others"):
        np.testing.assert_allclose(getattr(scores, name) + 9, getattr(without, name), atol=1e-4)


def test_it_has_vanilla_and_context_arms_and_no_adapted_one(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "tiny", VIT)
    assert arms_of(folder) == arms_of("open_clip:ViT-B-16/openai") == ("vanilla", "context")
    assert default_arm(folder) == "vanilla"
    assert isinstance(load_clip(folder).image_tower, ClipImageTower)
    assert isinstance(load_clip(_folder(tmp_path / "rn", RESNET)).image_tower, OpenClipImageTower)
    assert isinstance(load_clip(folder, weights="context"), PooledCLIP)
    for arm in ("adapted", "mpt-only"):
        with pytest.raises(ModelError, match=f"has no {arm} arm, only vanilla and context"):
            load_clip(folder, weights=arm)


def _put(hub: HubServer, repository: str, **files: bytes) -> None:
    for name, body in files.items():
        hub.put(f"{repository}/resolve/main/{name.replace('__', '.')}", body)


def test_a_repository_of_the_hub_is_fetched_once(hub: HubServer, tmp_path: Path) -> None:
    model = _model(VIT)
    record = json.dumps({"model_cfg": VIT, "preprocess_cfg": PIXELS}).encode()
    _put(hub, "owner/tiny", open_clip_config__json=record, open_clip_pytorch_model__bin=_saved(model))
    clip = load_clip("hf-hub:owner/tiny", cache_dir=tmp_path)
    assert clip.weights_sha256 and clip.crop_recipe.size == 32
    before = len(hub.requests)
    assert load_clip("hf-hub:owner/tiny", weights="context", cache_dir=tmp_path).text_key == clip.text_key
    assert not [r for r in hub.requests[before:] if "pytorch_model.bin" in r[1] or "config" in r[1]]


def _saved(model: Any) -> bytes:
    return save(model.state_dict())


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> str:
    """An architecture that open_clip knows by name, with weights at owner/listed."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-Ti-8", {**VIT, "quick_gelu": False})
    weights = {"web_b1": {"hf_hub": "owner/listed/", "quick_gelu": True, **PIXELS}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-Ti-8", weights)
    return "open_clip:ViT-Ti-8"


@torch.no_grad()
def test_a_listed_name_has_the_pixel_values_and_activation_of_its_weights(
    hub: HubServer, listed: str, tmp_path: Path
) -> None:
    model = _model({**VIT, "quick_gelu": True})
    _put(hub, "owner/listed", open_clip_model__safetensors=_saved(model))
    clip = load_clip(f"{listed}/web_b1", cache_dir=tmp_path)
    crops = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        clip.encode_regions(crops, torch.ones(2, 32, 32)), model.encode_image(crops, normalize=True)
    )
    assert clip.crop_recipe.pixel_mean == tuple(255 * v for v in PIXELS["mean"])
    assert clip.name == f"{listed}/web_b1"


def test_a_file_of_weights_goes_with_an_architecture(listed: str, tmp_path: Path) -> None:
    model = _model(VIT)
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "epoch_5.pt"
    )
    clip = load_clip(f"{listed}/{tmp_path / 'epoch_5.pt'}")
    assert clip.weights_files == {"epoch_5.pt": clip.weights_sha256} and clip.embed_dim == 32
    other = deepcopy(VIT)
    other["text_cfg"]["context_length"] = 20
    torch.save(_model(other).state_dict(), tmp_path / "longer.pt")
    with pytest.raises(
        CheckpointError, match=r"other architecture.*positional_embedding of shape \(20, 64\)"
    ):
        load_clip(f"{listed}/{tmp_path / 'longer.pt'}")
    torch.save({"some.weight": torch.zeros(2)}, tmp_path / "alien.pt")
    with pytest.raises(
        CheckpointError, match=r"other architecture: it lacks .* and has unknown some\.weight"
    ):
        load_clip(f"{listed}/{tmp_path / 'alien.pt'}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_clip:ViT-B-61/openai", r"no model 'ViT-B-61'; the nearest are .*ViT-B-16"),
        ("open_clip:ViT-B-16/laion2b", r"no weights 'laion2b'; the nearest are .*laion2b_s34b_b88k"),
        (
            "open_clip:ViT-B-16",
            r"no weights chosen; the nearest are .*\(written open_clip:ViT-B-16/WEIGHTS\)",
        ),
        ("open_clip:ViT-M-32/my.pt", r"it has none, so give a file"),
        ("hf-hub:tiny", r"names no repository: write hf-hub:OWNER/NAME"),
        ("local-dir:nowhere", r"folder 'nowhere' has no open_clip_config\.json"),
    ],
)
def test_a_name_that_is_none_is_told_with_its_neighbours(name: str, said: str) -> None:
    with pytest.raises(UnknownModelError, match=said) as caught:
        load_clip(name)
    assert str(caught.value).count(".\n") == 0 and "\n" not in str(caught.value)


def test_no_hub_and_no_such_repository_are_told(
    hub: HubServer, listed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        DownloadError, match=r"hub has no repository 'owner/none' with open_clip_config\.json"
    ):
        load_clip("hf-hub:owner/none", cache_dir=tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DownloadError, match=r"^open_clip:ViT-Ti-8/web_b1 is not on this machine and .*folder\.$"
    ):
        load_clip(f"{listed}/web_b1", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda f: (f / "open_clip_model.safetensors").unlink(),
            r"has no weights; open_clip_model\.safetensors",
        ),
        (lambda f: (f / "open_clip_config.json").write_text("{}"), r"is no configuration of open_clip"),
        (lambda f: (f / "open_clip_config.json").write_text("nonsense"), r"is no configuration of open_clip"),
    ],
)
def test_a_folder_that_lacks_something_is_told(
    change: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    folder = _folder(tmp_path / "tiny", VIT)
    change(folder)
    with pytest.raises(CheckpointError, match=said):
        load_clip(folder)


def test_a_text_tower_of_another_library_is_refused(tmp_path: Path) -> None:
    config = {**VIT, "text_cfg": {"hf_model_name": "roberta-base", "hf_tokenizer_name": "roberta-base"}}
    with pytest.raises(ModelError, match="text tower of another library"):
        empty_model(config, "tiny")


@torch.no_grad()
def test_a_tokeniser_of_its_own_is_read_from_the_folder(tmp_path: Path) -> None:
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "cat", "dog", "a", "photo"])}
    fast = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    config = deepcopy(SIGMOID)
    config["text_cfg"] = {**TEXT, "vocab_size": 6, "pool_type": "last", "hf_tokenizer_name": "owner/words"}
    model = _model(config)
    folder = _folder(tmp_path / "tiny", config, model)
    PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]", cls_token="[UNK]", sep_token="[UNK]"
    ).save_pretrained(folder)
    clip = load_clip(folder)
    tokens = torch.tensor([[4, 5, 2, *[0] * 9], [3, *[0] * 11]])
    torch.testing.assert_close(
        clip.encode_sentences(["a photo cat", "dog"]), model.encode_text(tokens, normalize=True)
    )
    (folder / "tokenizer.json").write_text("nonsense", "utf-8")
    with pytest.raises(ModelError, match=r"tokenizer in .* cannot be read"):
        load_clip(folder)


@torch.no_grad()
def test_a_clip_of_transformers_gives_the_same_features(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={**sizes, "eos_token_id": 49407, "bos_token_id": 49406, "max_position_embeddings": 12},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    clip = load_clip(tmp_path)
    crops = torch.randn(2, 3, 32, 32)
    own = _pooled(model.get_image_features(crops))
    torch.testing.assert_close(clip.encode_regions(crops, torch.ones(2, 32, 32)), _unit(own))
    tokens = open_clip.SimpleTokenizer(context_length=12)(["a cat", "dogs"])
    text = _pooled(model.get_text_features(tokens))
    torch.testing.assert_close(clip.encode_sentences(["a cat", "dogs"]), _unit(text))
    assert clip.score_scale == pytest.approx(float(model.logit_scale.exp()), rel=1e-5)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}), "utf-8")
    with pytest.raises(CheckpointError, match=r"is no CLIP: its config\.json is of bert"):
        load_clip(tmp_path)


def _pooled(features: Any) -> Tensor:
    return features if isinstance(features, Tensor) else features.pooler_output


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features, dim=-1)
