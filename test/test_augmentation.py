"""Augmentation moves image and labels alike, repeats by seed, and changes nothing by default."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.augmentation import AugmentationOptions, augment, photometry

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
    grayscale=0.2,
    overexposure=0.2,
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
        {"grayscale": 1.0},
        {"overexposure": 1.0},
        {"blur": 1.0},
        {"noise": 1.0},
        {"jpeg": 1.0},
    ],
)
def test_every_photometric_option_does_something_to_the_image_only(change: dict[str, float]) -> None:
    image = torch.from_numpy(rng(2).integers(0, 200, (3, 32, 64), dtype=np.uint8))
    options = replace(AugmentationOptions(), **change)
    changed = photometry(image, options, rng(7))
    assert changed.dtype == torch.uint8 and changed.shape == image.shape
    assert not torch.equal(changed, image)
    labels = street()[1]
    assert torch.equal(augment(street()[0], labels, options, rng(7))[1], labels)


def test_gray_is_gray_and_keeps_luma() -> None:
    image = torch.from_numpy(rng(2).integers(0, 256, (3, 16, 16), dtype=np.uint8))
    gray = photometry(image, AugmentationOptions(grayscale=1.0), rng()).float()
    assert (gray[0] == gray[1]).all() and (gray[1] == gray[2]).all()
    luma = (image.float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    assert (gray[0] - luma).abs().max() <= 0.5


def test_hue_keeps_gray_pixels_and_luma() -> None:
    gray = torch.full((3, 4, 4), 77, dtype=torch.uint8)
    assert (photometry(gray, AugmentationOptions(hue=0.4), rng(1)).int() - 77).abs().max() <= 1


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
