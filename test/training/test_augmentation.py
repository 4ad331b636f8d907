"""Augmentation moves image and labels alike, repeats by seed, changes nothing by default, and is one on all devices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from training.configuration import AugmentationOptions
from training.data import augmentation
from training.data.augmentation import Draw, Draws, augment, augment_batch, augment_sample, draw
from training.data.jpeg import jpeg

EVERYTHING = AugmentationOptions(
    crop=(48, 96),
    scale=(0.6, 1.7),
    stretch=(0.75, 1.3),
    flip=0.5,
    brightness=0.35,
    contrast=0.35,
    saturation=0.45,
    hue=0.04,
    gamma=0.5,
    white_balance=0.12,
    shadow=0.3,
    grayscale=0.2,
    overexposure=0.2,
    sharpen=0.3,
    blur=0.3,
    noise=0.3,
    jpeg=0.3,
)
GEOMETRY = AugmentationOptions(crop=(48, 96), scale=(0.6, 1.7), stretch=(0.75, 1.3), flip=0.5)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def street(height: int = 64, width: int = 128) -> tuple[Tensor, Tensor]:
    """An image whose colour tells the label of its own pixel: blocks of 16, red 40 * label; and two label maps."""
    blocks = rng(1).integers(0, 6, (height // 16, width // 16))
    labels = torch.from_numpy(np.kron(blocks, np.ones((16, 16))).astype(np.uint8))
    image = torch.stack([40 * labels, torch.full_like(labels, 90), torch.full_like(labels, 160)])
    return image, torch.stack([labels, 5 - labels])


def colored(image: Tensor, options: AugmentationOptions, seed: int = 0) -> Tensor:
    """An image augmented for its own sake."""
    return augment(image, torch.zeros(0, *image.shape[1:], dtype=torch.uint8), options, rng(seed))[0]


def photo(height: int = 96, width: int = 160) -> Tensor:
    """Something smooth with edges, as cameras give."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 5, width), indexing="ij")
    waves = torch.stack([torch.sin(3 * x + y), torch.cos(2 * y - x), torch.sin(2 * x - y)])
    waves[:, height // 3 : height // 2, width // 4 : width // 2] -= 0.8
    return (127 + 110 * waves).clamp(0, 255).to(torch.uint8)


def draws_of(options: AugmentationOptions, size: tuple[int, int], seeds: range) -> list[Draw]:
    return [draw(size, options, rng(seed)) for seed in seeds]


def is_padded(drawn: Draw) -> bool:
    return (drawn.rows.placed, drawn.columns.placed) != drawn.size


def test_nothing_changes_by_default() -> None:
    image, labels = street()
    same, same_labels = augment(image, labels, AugmentationOptions(), rng())
    assert torch.equal(same, image) and torch.equal(same_labels, labels)


@pytest.mark.parametrize("seed", range(12))
def test_image_and_labels_move_alike_and_255_fills_what_is_outside(seed: int) -> None:
    image, labels = street()
    moved, moved_labels = augment(image, labels, GEOMETRY, rng(seed))
    assert moved.shape == (3, 48, 96) and moved_labels.shape == (2, 48, 96)
    assert moved.dtype == moved_labels.dtype == torch.uint8
    inside = moved_labels[0] != 255
    assert torch.equal(inside, moved_labels[1] != 255)
    assert (moved_labels[1][inside] == 5 - moved_labels[0][inside]).all()
    # Away from the blurred seams of the blocks, the colour still tells the label.
    agrees = (moved[0].int() - 40 * moved_labels[0].int()).abs() <= 1
    assert agrees[inside].float().mean() > 0.7
    assert (moved[1][inside] == 90).all()
    assert (moved[:, ~inside] == torch.tensor([124, 116, 104])[:, None]).all()


def test_small_zoom_pads_and_large_zoom_does_not() -> None:
    image, labels = street()
    shrunk = augment(image, labels, AugmentationOptions(crop=(64, 128), scale=(0.5, 0.5)), rng())[1]
    assert (shrunk[0] != 255).float().mean() == pytest.approx(0.25, abs=0.01)
    grown = augment(image, labels, AugmentationOptions(crop=(64, 128), scale=(2.0, 2.0)), rng())[1]
    assert (grown != 255).all()


def test_zoom_is_log_uniform() -> None:
    """Half of the zooms between 1/2 and 2 shrink; seen in how much of the canvas is covered."""
    image, labels = torch.zeros(3, 32, 64, dtype=torch.uint8), torch.zeros(1, 32, 64, dtype=torch.uint8)
    options = AugmentationOptions(crop=(32, 64), scale=(0.5, 2.0))
    generator = rng()
    padded = [bool((augment(image, labels, options, generator)[1] == 255).any()) for _ in range(400)]
    assert np.mean(padded) == pytest.approx(0.5, abs=0.08)


def test_flip_mirrors_both() -> None:
    image, labels = street()
    flipped, flipped_labels = augment(image, labels, AugmentationOptions(flip=1.0), rng())
    assert torch.equal(flipped, image.flip(-1)) and torch.equal(flipped_labels, labels.flip(-1))


def test_same_seed_same_sample() -> None:
    image, labels = street()
    one, one_labels = augment(image, labels, EVERYTHING, rng(4))
    same, same_labels = augment(image, labels, EVERYTHING, rng(4))
    other, _ = augment(image, labels, EVERYTHING, rng(5))
    assert torch.equal(one, same) and torch.equal(one_labels, same_labels)
    assert not torch.equal(one, other)


def test_the_given_tensors_are_left_as_they_are() -> None:
    image, labels = street()
    before, before_labels = image.clone(), labels.clone()
    for seed in range(5):
        augment(image, labels, EVERYTHING, rng(seed))
    assert torch.equal(image, before) and torch.equal(labels, before_labels)


@pytest.mark.parametrize(
    "change",
    [
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"saturation": 0.5},
        {"hue": 0.1},
        {"gamma": 0.5},
        {"white_balance": 0.3},
        {"shadow": 1.0},
        {"grayscale": 1.0},
        {"overexposure": 1.0},
        {"sharpen": 1.0},
        {"blur": 1.0},
        {"noise": 1.0},
        {"jpeg": 1.0},
    ],
)
def test_every_photometric_option_does_something_to_the_image_only(change: dict[str, float]) -> None:
    image = torch.from_numpy(rng(2).integers(0, 200, (3, 32, 64), dtype=np.uint8))
    options = replace(AugmentationOptions(), **change)
    changed = colored(image, options, seed=7)
    assert changed.dtype == torch.uint8 and changed.shape == image.shape
    assert not torch.equal(changed, image)
    labels = street()[1]
    assert torch.equal(augment(street()[0], labels, options, rng(7))[1], labels)


def test_gray_is_gray_and_keeps_luma() -> None:
    image = torch.from_numpy(rng(2).integers(0, 256, (3, 16, 16), dtype=np.uint8))
    gray = colored(image, AugmentationOptions(grayscale=1.0)).float()
    assert (gray[0] == gray[1]).all() and (gray[1] == gray[2]).all()
    luma = (image.float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    assert (gray[0] - luma).abs().max() <= 0.5


def test_hue_keeps_gray_pixels_and_luma() -> None:
    gray = torch.full((3, 4, 4), 77, dtype=torch.uint8)
    assert (colored(gray, AugmentationOptions(hue=0.4), seed=1).int() - 77).abs().max() <= 1


@given(
    height=st.integers(8, 70),
    width=st.integers(8, 140),
    crop=st.tuples(st.integers(4, 64), st.integers(4, 64)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_any_image_becomes_the_crop(height: int, width: int, crop: tuple[int, int], seed: int) -> None:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    labels = torch.ones(1, height, width, dtype=torch.uint8)
    moved, moved_labels = augment(image, labels, replace(EVERYTHING, crop=crop), rng(seed))
    assert moved.shape == (3, *crop) and moved_labels.shape == (1, *crop)
    assert set(moved_labels.unique().tolist()) <= {1, 255} and (moved_labels == 1).any()


# --- a batch at a time, as GPUs do it ------------------------------------------------------------------------------


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize(
    ("device", "jpeg_of"), [("cpu", "cpu"), ("cpu", "a GPU"), pytest.param("cuda", "a GPU", marks=NO_GPU)]
)
def test_a_batch_is_augmented_as_its_samples(device: str, jpeg_of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and padding are equal, images but for rounding, which JPEG, sharpening and contrast enlarge."""
    image, labels = photo(), torch.from_numpy(rng(3).integers(0, 3, (2, 96, 160), dtype=np.uint8))
    options = replace(EVERYTHING, crop=(80, 140), noise=0.3 if device == "cpu" else 0.0)  # a GPU has its own noise
    drawn = draws_of(options, (96, 160), range(48))
    assert {name for one in drawn for name in one.operations} >= {"shadow", "color", "sharpen", "blur", "jpeg"}
    assert 5 < sum(map(is_padded, drawn)) < 43, "both kinds are tested"
    singles = [augment_sample(image, labels, one) for one in drawn]
    if jpeg_of == "a GPU":
        monkeypatch.setitem(
            augmentation.OPERATIONS, "jpeg", lambda images, operation, _: jpeg(images, operation.parameters)
        )
    images, maps = augment_batch(
        image.repeat(48, 1, 1, 1).to(device),
        labels.repeat(48, 1, 1, 1).to(device),
        Draws.of(drawn).map(lambda tensor: tensor.to(device)),
    )
    images, maps = images.cpu(), maps.cpu()
    for one, (single, single_map), batched, batched_map in zip(drawn, singles, images, maps, strict=True):
        assert torch.equal(batched_map, single_map)
        outside = single_map[0] == 255
        assert torch.equal(batched[:, outside], single[:, outside])
        difference = (batched.int() - single.int()).abs().float()
        if not is_padded(one):
            assert difference.mean() < 1.0 and difference.quantile(0.95) <= 4, one.operations.keys()
        elif not one.operations.keys() & {"noise", "jpeg"}:  # they fall on other pixels there
            assert difference.mean() < 2.0, one.operations.keys()


def test_a_batch_may_be_divided_and_repeated() -> None:
    drawn = draws_of(EVERYTHING, (96, 160), range(8))
    images, labels = photo().repeat(8, 1, 1, 1), torch.zeros(8, 1, 96, 160, dtype=torch.uint8)
    whole = augment_batch(images, labels, Draws.of(drawn))
    again = augment_batch(images, labels, Draws.of(drawn))
    assert torch.equal(whole[0], again[0]) and torch.equal(whole[1], again[1])
    for half in (slice(0, 4), slice(4, 8)):
        part = augment_batch(images[half], labels[half], Draws.of(drawn[half]))
        assert torch.equal(part[1], whole[1][half])
        assert (part[0].int() - whole[0][half].int()).abs().float().mean() < 0.01


def test_what_lies_beyond_a_smaller_image_of_a_batch_is_not_looked_at() -> None:
    image, labels = photo(), torch.ones(1, 96, 160, dtype=torch.uint8)
    drawn = Draws.of(draws_of(GEOMETRY, (96, 160), range(6)))
    wide = torch.cat([image, torch.full((3, 96, 40), 250, dtype=torch.uint8)], 2)
    wide_labels = torch.cat([labels, torch.full((1, 96, 40), 2, dtype=torch.uint8)], 2)
    own = augment_batch(image.repeat(6, 1, 1, 1), labels.repeat(6, 1, 1, 1), drawn)
    padded = augment_batch(wide.repeat(6, 1, 1, 1), wide_labels.repeat(6, 1, 1, 1), drawn)
    assert torch.equal(own[1], padded[1]) and (own[0].int() - padded[0].int()).abs().max() <= 1


def test_images_that_stay_different_in_size_make_no_batch() -> None:
    drawn = [draw(size, AugmentationOptions(), rng()) for size in ((32, 64), (32, 80))]
    with pytest.raises(ValueError, match=r"differ in size: set augmentation\.crop"):
        Draws.of(drawn)


@NO_GPU
def test_the_host_does_not_wait_for_a_gpu() -> None:
    drawn = Draws.of(draws_of(EVERYTHING, (96, 160), range(8))).map(lambda tensor: tensor.to("cuda"))
    images = torch.zeros(8, 3, 96, 160, dtype=torch.uint8, device="cuda")
    labels = torch.zeros(8, 2, 96, 160, dtype=torch.uint8, device="cuda")
    augment_batch(images, labels, drawn)  # constants are copied now
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment_batch(images, labels, drawn)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_device_is_not_asked_for_values_and_gets_no_tensor_of_the_host() -> None:
    """On the meta device both are errors; on a GPU they would be waiting."""
    drawn = Draws.of(draws_of(replace(EVERYTHING, noise=0.0, jpeg=1.0), (96, 160), range(8)))
    images, labels = augment_batch(
        torch.zeros(8, 3, 96, 160, dtype=torch.uint8, device="meta"),
        torch.zeros(8, 2, 96, 160, dtype=torch.uint8, device="meta"),
        drawn.map(lambda tensor: tensor.to("meta")),
    )
    assert images.shape == (8, 3, 48, 96) and labels.shape == (8, 2, 48, 96)
    assert images.device.type == "meta" and images.dtype == labels.dtype == torch.uint8


@pytest.mark.parametrize("quality", [25, 49, 50, 89])
def test_jpeg_without_an_encoder_loses_what_jpeg_loses(quality: int) -> None:
    image = photo(90, 150)  # neither is a multiple of 16
    expected = v2.jpeg(image, quality).float()
    result = jpeg(torch.stack([image, image.flip(1)]), torch.tensor([[float(quality)], [95.0]])).float()
    loss = (expected - image.float()).abs().mean()
    assert loss > 1
    assert (result[0] - expected).abs().mean() < 0.8, "the same loss, not just as much of it"
    assert ((result[0] - expected).abs() <= 4).float().mean() > 0.95
    better = (result[1] - image.flip(1).float()).abs().mean()
    assert better < loss, "every image has its own quality"
