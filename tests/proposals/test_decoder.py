"""The decoder without repeated work gives what the packages' own decoders give."""

from __future__ import annotations

from typing import Any

import pytest
import segment_anything.modeling as sam_modules
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ovseg_demo.proposals.decoder import Decoded, PointDecoder
from ovseg_demo.proposals.mask_upscaling import MaskUpscaling
from ovseg_demo.proposals.mobile_sam import build_mobile_sam

SIDE, HEIGHT, WIDTH = 256, 9, 16


def of_sam() -> tuple[Any, Any]:
    """Prompt encoder and mask decoder of segment_anything, small and random."""
    transformer = sam_modules.TwoWayTransformer(depth=3, embedding_dim=64, num_heads=4, mlp_dim=96)
    decoder = sam_modules.MaskDecoder(transformer_dim=64, transformer=transformer)
    prompts = sam_modules.PromptEncoder(
        embed_dim=64, image_embedding_size=(16, 16), input_image_size=(SIDE, SIDE), mask_in_chans=16
    )
    return prompts, decoder


def of_mobile_sam() -> tuple[Any, Any]:
    """The same of MobileSAM's package, of real size and random."""
    parts = build_mobile_sam(SIDE)
    return parts["prompt_encoder"], parts["mask_decoder"]


def published(prompts: Any, decoder: Any, embedding: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and quality by the package's own decoder, which repeats the image for every prompt."""
    count, (height, width) = len(points), embedding.shape[-2:]
    sparse, dense = prompts(points=(points[:, None], torch.ones(count, 1)), boxes=None, masks=None)
    return decoder(
        image_embeddings=embedding,
        image_pe=prompts.get_dense_pe()[..., :height, :width],
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense[..., :height, :width],
        multimask_output=True,
    )


def all_masks(decoder: PointDecoder, decoded: Decoded) -> Tensor:
    """(B, M, h, w) the logits of all masks of all prompts."""
    logits = decoder.masks(decoded, torch.ones_like(decoded.quality, dtype=torch.bool))
    return logits.view(*decoded.quality.shape, *logits.shape[1:])


@pytest.mark.parametrize("modules", [of_sam, of_mobile_sam])
@torch.inference_mode()
def test_masks_and_qualities_agree_with_the_package(modules: Any) -> None:
    torch.manual_seed(0)
    prompts, decoder = modules()
    # Norms that do nothing and biases that are zero would hide mistakes.
    for parameter in decoder.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.05)
    embedding = torch.randn(1, prompts.embed_dim, HEIGHT, WIDTH)
    points = torch.rand(5, 2) * SIDE

    ours = PointDecoder(prompts, decoder, torch.float32)
    decoded = ours.decode(ours.prepare(embedding), points)
    logits = all_masks(ours, decoded)

    expected_logits, expected_quality = published(prompts, decoder, embedding, points)
    assert logits.shape == expected_logits.shape == (5, 3, 4 * HEIGHT, 4 * WIDTH)
    torch.testing.assert_close(decoded.quality, expected_quality, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits, expected_logits, atol=1e-4 * float(logits.std()), rtol=1e-4)


@pytest.mark.parametrize("modules", [of_sam, of_mobile_sam])
@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("with_box", [False, True])
@torch.inference_mode()
def test_clicks_and_boxes_agree_with_the_package(modules: Any, count: int, with_box: bool) -> None:
    if not count and not with_box:
        return
    torch.manual_seed(3)
    prompts, decoder = modules()
    embedding = torch.randn(1, prompts.embed_dim, HEIGHT, WIDTH)
    points, positive = torch.rand(count, 2) * SIDE, torch.tensor([True, False, True])[:count]
    box = torch.tensor([20.0, 30.0, 120.0, 90.0]) if with_box else None

    ours = PointDecoder(prompts, decoder, torch.float32)
    decoded = ours.decode_prompt(ours.prepare(embedding), points, positive, box)
    logits = all_masks(ours, decoded)

    clicks = (points[None], positive[None].float()) if count else None
    sparse, dense = prompts(points=clicks, boxes=None if box is None else box[None], masks=None)
    for multimask, which in ((False, slice(0, 1)), (True, slice(1, 4))):
        expected_logits, expected_quality = decoder(
            image_embeddings=embedding,
            image_pe=prompts.get_dense_pe()[..., :HEIGHT, :WIDTH],
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense[..., :HEIGHT, :WIDTH],
            multimask_output=multimask,
        )
        torch.testing.assert_close(decoded.quality[:, which], expected_quality, atol=1e-5, rtol=1e-4)
        tolerance = 1e-4 * float(logits.std())
        torch.testing.assert_close(logits[:, which], expected_logits, atol=tolerance, rtol=1e-4)


@torch.inference_mode()
def test_a_prompt_gives_the_same_alone_and_in_a_batch() -> None:
    torch.manual_seed(1)
    ours = PointDecoder(*of_sam(), torch.float32)
    image = ours.prepare(torch.randn(1, 64, HEIGHT, WIDTH))
    points = torch.rand(4, 2) * SIDE
    together = ours.decode(image, points)
    alone = ours.decode(image, points[2:3])
    torch.testing.assert_close(alone.quality, together.quality[2:3])
    torch.testing.assert_close(all_masks(ours, alone)[0], all_masks(ours, together)[2], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_only_the_wanted_masks_are_computed() -> None:
    torch.manual_seed(4)
    ours = PointDecoder(*of_sam(), torch.float32)
    decoded = ours.decode(ours.prepare(torch.randn(1, 64, HEIGHT, WIDTH)), torch.rand(4, 2) * SIDE)
    wanted = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=torch.bool)
    torch.testing.assert_close(ours.masks(decoded, wanted), all_masks(ours, decoded)[wanted])


@torch.inference_mode()
def test_along_edges_every_cell_is_computed_and_elsewhere_one() -> None:
    torch.manual_seed(5)
    prompts, decoder = of_sam()
    ours = PointDecoder(prompts, decoder, torch.float32)
    decoded = ours.decode(ours.prepare(torch.randn(1, 64, HEIGHT, WIDTH)), torch.rand(4, 2) * SIDE)
    wanted = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=torch.bool)
    exact = ours.masks(decoded, wanted)
    upscaling = MaskUpscaling(decoder.output_upscaling, torch.float32)

    torch.testing.assert_close(upscaling.edge_masks(decoded, wanted, margin=1e9), exact)
    one_cell = exact[:, 1::4, 1::4].repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    torch.testing.assert_close(upscaling.edge_masks(decoded, wanted, margin=-1e9), one_cell)

    # Random logits change their signs everywhere: the edges here are the largest steps.
    sampled = exact[:, None, 1::4, 1::4]
    step = torch.minimum(*(max_pool2d(x, 3, 1, 1)[:, 0] for x in (sampled, -sampled)))
    margin = -float(step.quantile(0.9))
    steep = step > -margin
    prompt = wanted.nonzero()[:, 0]
    near = torch.stack([steep[prompt == own].any(dim=0) for own in prompt])[..., None, None]
    assert 0 < near.float().mean() < 1
    cells = [x.view(-1, HEIGHT, 4, WIDTH, 4).permute(0, 1, 3, 2, 4) for x in (exact, one_cell)]
    found = upscaling.edge_masks(decoded, wanted, margin).view(-1, HEIGHT, 4, WIDTH, 4)
    torch.testing.assert_close(found.permute(0, 1, 3, 2, 4), torch.where(near, *cells))


@torch.inference_mode()
def test_bfloat16_stays_close() -> None:
    torch.manual_seed(2)
    modules = of_sam()
    embedding, points = torch.randn(1, 64, HEIGHT, WIDTH), torch.rand(4, 2) * SIDE
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        decoder = PointDecoder(*modules, dtype)
        decoded = decoder.decode(decoder.prepare(embedding), points)
        found.append(all_masks(decoder, decoded))
    exact, rounded = found
    assert rounded.dtype == torch.float32
    assert (exact - rounded).norm() < 0.03 * exact.norm()
