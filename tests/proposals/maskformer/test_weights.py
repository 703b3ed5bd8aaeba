"""A complete OVSeg file becomes a network, key by key; a file that is none gets one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip.checkpoints import read_checkpoint
from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.maskformer.config import DeepLabResNetConfig, MaskFormerNetworkConfig
from ovseg_demo.proposals.maskformer.key_mapping import CLIP_PREFIX, NO_OBJECT, UNUSED, places
from ovseg_demo.proposals.maskformer.network import MaskFormerNetwork, prepare, text_head
from ovseg_demo.proposals.maskformer.weights import load_segmenter, read_segmenter
from tests.tiny_full import (
    TINY,
    TINY_RESNET,
    clip_weights,
    full_weights,
    other_shape,
    save_full,
    segmenter_weights,
)

Weights = dict[str, Tensor]


@pytest.fixture
def weights() -> Weights:
    return full_weights()


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_segmenter(path)
    message = str(caught.value)
    assert path.name in message and message.endswith(".") and "\n" not in message
    return message


@pytest.mark.parametrize("shape", [TINY, TINY_RESNET], ids=["swin", "resnet"])
def test_every_key_of_a_complete_file_is_used_or_named(
    shape: MaskFormerNetworkConfig, tmp_path: Path
) -> None:
    weights = full_weights(shape)
    path = save_full(tmp_path / "full.pth", weights)
    shape = MaskFormerNetworkConfig.of(read_segmenter(path), path)
    with torch.device("meta"):
        network = MaskFormerNetwork(shape, text_head(shape, 32, 24))
    names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    segmenter = {place.key for place in places(names, shape.stages).values()}
    clip = {CLIP_PREFIX + key for key in read_checkpoint(path)}
    assert segmenter | clip | {NO_OBJECT} | set(UNUSED) == set(weights)


def test_the_architecture_is_read_off_the_shapes(tmp_path: Path) -> None:
    for name, shape in {
        "tiny": TINY,
        "deeper": other_shape(depths=(2, 1, 3, 2), decoder_layers=3),
        "wider": other_shape(embed_dim=16, heads=(2, 2, 4, 8), hidden=64, decoder_heads=4, mask_dim=24),
        "resnet": TINY_RESNET,
        "wider resnet": replace(
            TINY_RESNET,
            backbone=DeepLabResNetConfig(stem_width=6, channels=(6, 12, 24, 48), depths=(2, 1, 3, 3)),
        ),
        "other window": other_shape(window=3, conv_dim=64, queries=3, feedforward=20),
    }.items():
        path = save_full(tmp_path / f"{name}.pth", segmenter_weights(shape))
        assert MaskFormerNetworkConfig.of(read_segmenter(path), path) == shape
        network, no_object = load_segmenter(path)
        with torch.inference_mode():
            features = network.features(prepare(torch.zeros(40, 50, 3, dtype=torch.uint8)))
            points, masks = network.heads(network.queries(features[-1]), network.mask_features(features))
        assert points.shape == (shape.queries, 32)
        assert masks.shape == (shape.queries, 16, 16)  # 64 x 64 after padding, stride 4
        assert no_object.norm().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("hidden", "heads"), [(256, 8), (128, 8), (64, 4), (32, 2), (16, 1)])
def test_attention_heads_are_guessed_as_published(hidden: int, heads: int, tmp_path: Path) -> None:
    """No shape tells them: 8 at a width of 256, 4 in the published modules' tensors at 64."""
    weights = segmenter_weights(other_shape(hidden=hidden, decoder_heads=heads))
    shape = MaskFormerNetworkConfig.of(weights, tmp_path / "full.pth")
    assert shape.decoder_heads == heads
    assert MaskFormerNetworkConfig.of(weights, tmp_path / "full.pth", decoder_heads=4).decoder_heads == 4


def test_equal_widths_need_a_projection_only_if_the_file_has_one(tmp_path: Path) -> None:
    shape = other_shape(hidden=64)  # as wide as the deepest features
    with_projection = segmenter_weights(shape)
    path = save_full(tmp_path / "with.pth", with_projection)
    assert load_segmenter(path)[0].model.transformer_module.input_projection is not None
    without = {k: v for k, v in with_projection.items() if "input_proj" not in k}
    path = save_full(tmp_path / "without.pth", without)
    assert load_segmenter(path)[0].model.transformer_module.input_projection is None


def test_half_precision_is_read_as_it_is(weights: Weights, tmp_path: Path) -> None:
    halves = {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in weights.items()}
    read = read_segmenter(save_full(tmp_path / "half.pth", halves))
    key = "sem_seg_head.predictor.query_embed.weight"
    assert torch.equal(read[key], weights[key].half().float())


def test_the_resnet_computes_what_its_published_names_say(tmp_path: Path) -> None:
    """Layer by layer from the file: three convolutions, stride in the 3 x 3 one, dilations 1, 2, 4 last."""
    weights = segmenter_weights(TINY_RESNET)
    pixels = torch.randn(1, 3, 64, 96)

    def conv(features: Tensor, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
        kernel = weights[f"backbone.{name}.weight"]
        padding = dilation * (kernel.shape[-1] // 2)
        found = functional.conv2d(features, kernel, stride=stride, padding=padding, dilation=dilation)
        mean, var, scale, shift = (
            weights[f"backbone.{name}.norm.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (found - mean) / (var + 1e-5).sqrt() * scale + shift

    expected = pixels
    for i in (1, 2, 3):
        expected = conv(expected, f"stem.conv{i}", stride=2 if i == 1 else 1).relu()
    expected = functional.max_pool2d(expected, 3, stride=2, padding=1)
    maps = []
    for stage, depth in zip((2, 3, 4, 5), (1, 2, 1, 3), strict=True):
        for block in range(depth):
            place = f"res{stage}.{block}"
            stride = 2 if stage > 2 and block == 0 else 1
            found = conv(expected, f"{place}.conv1").relu()
            found = conv(found, f"{place}.conv2", stride, (1, 2, 4)[block] if stage == 5 else 1).relu()
            found = conv(found, f"{place}.conv3")
            if f"backbone.{place}.shortcut.weight" in weights:
                expected = conv(expected, f"{place}.shortcut", stride)
            expected = (found + expected).relu()
        maps.append(expected)
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]

    network, _ = load_segmenter(save_full(tmp_path / "full.pth", weights))
    with torch.inference_mode():
        for ours, theirs in zip(network.features(pixels), maps, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_counters_of_batch_norms_are_no_surprise(tmp_path: Path) -> None:
    weights = segmenter_weights(TINY_RESNET)
    weights["backbone.stem.conv1.norm.num_batches_tracked"] = torch.tensor(120_000)
    load_segmenter(save_full(tmp_path / "full.pth", weights))


class TestBadFiles:
    def test_a_clip_alone(self, tmp_path: Path) -> None:
        torch.save(clip_weights(), tmp_path / "clip.pt")
        assert "holds a CLIP alone" in refusal(tmp_path / "clip.pt")
        inside = {CLIP_PREFIX + key: value for key, value in clip_weights().items()}
        assert "holds a CLIP alone" in refusal(save_full(tmp_path / "inside.pth", inside))

    def test_another_segmenter(self, weights: Weights, tmp_path: Path) -> None:
        convnext = {"backbone.stages.0.0.conv_dw.weight": torch.zeros(2), NO_OBJECT: weights[NO_OBJECT]}
        told = refusal(save_full(tmp_path / "convnext.pth", convnext))
        assert "another segmenter" in told and "backbone.stages.0.0.conv_dw.weight" in told

    def test_a_resnet_of_another_form(self, tmp_path: Path) -> None:
        resnet = segmenter_weights(TINY_RESNET)
        one_more = {
            key.replace("res5.2.", "res5.3."): value for key, value in resnet.items() if "res5.2." in key
        }
        assert "4 blocks in res5" in refusal(save_full(tmp_path / "r.pth", resnet | one_more))
        del resnet["backbone.stem.conv3.weight"]
        told = refusal(save_full(tmp_path / "R50.pth", resnet))
        assert "lacks backbone.stem.conv3.weight" in told

    def test_a_file_that_is_cut_short(self, weights: Weights, tmp_path: Path) -> None:
        path = save_full(tmp_path / "full.pth", weights)
        path.write_bytes(path.read_bytes()[:-2000])
        assert "cut short" in refusal(path)

    def test_code_is_refused_unread(self, tmp_path: Path) -> None:
        class Harm:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return (Path.touch, (tmp_path / "harmed",))  # type: ignore[return-value]

        torch.save({"model": {"backbone.x": Harm()}}, tmp_path / "harm.pth")
        assert "refused" in refusal(tmp_path / "harm.pth")
        assert not (tmp_path / "harmed").exists()

    @pytest.mark.parametrize(
        "key",
        [
            NO_OBJECT,
            "backbone.norm2.bias",
            "backbone.layers.1.blocks.1.attn.qkv.weight",
            "sem_seg_head.predictor.query_embed.weight",
            "sem_seg_head.predictor.transformer.decoder.layers.1.multihead_attn.in_proj_bias",
        ],
    )
    def test_a_missing_key_is_listed(self, weights: Weights, tmp_path: Path, key: str) -> None:
        del weights[key]
        told = refusal(save_full(tmp_path / "full.pth", weights))
        assert "lacks" in told and key in told

    def test_an_unknown_key_is_listed(self, weights: Weights, tmp_path: Path) -> None:
        weights["sem_seg_head.predictor.surprise"] = torch.zeros(2)
        assert "has unknown sem_seg_head.predictor.surprise" in refusal(
            save_full(tmp_path / "f.pth", weights)
        )

    @pytest.mark.parametrize(
        ("key", "shape", "fits"),
        [
            ("backbone.norm3.weight", (65,), "(64,)"),
            ("backbone.layers.0.blocks.0.attn.qkv.weight", (24, 9), "(24, 8)"),
            ("sem_seg_head.predictor.mask_embed.layers.1.weight", (32, 16), "(32, 32)"),
            (NO_OBJECT, (1, 31), "(1, 32)"),
        ],
    )
    def test_the_first_key_that_does_not_fit_is_named(
        self, weights: Weights, tmp_path: Path, key: str, shape: tuple[int, ...], fits: str
    ) -> None:
        weights[key] = torch.zeros(shape)
        told = refusal(save_full(tmp_path / "full.pth", weights))
        assert f"{key} of shape {shape} where {fits} fits" in told

    def test_sizes_that_no_maskformer_has(self, weights: Weights, tmp_path: Path) -> None:
        weights["backbone.layers.0.blocks.0.attn.relative_position_bias_table"] = torch.zeros(50, 1)
        assert "50 relative positions" in refusal(save_full(tmp_path / "full.pth", weights))

    def test_a_wrong_order_of_positions(self, weights: Weights, tmp_path: Path) -> None:
        key = "backbone.layers.0.blocks.0.attn.relative_position_index"
        weights[key] = weights[key].flip(0)
        assert "not Swin's" in refusal(save_full(tmp_path / "full.pth", weights))

    def test_weights_that_are_no_numbers(self, weights: Weights, tmp_path: Path) -> None:
        weights["backbone.norm0.bias"] = torch.full((8,), float("nan"))
        assert "NaN" in refusal(save_full(tmp_path / "full.pth", weights))
        weights["backbone.norm0.bias"] = torch.zeros(8, dtype=torch.int32)
        assert "torch.int32 where weights belong" in refusal(save_full(tmp_path / "full.pth", weights))
