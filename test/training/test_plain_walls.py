"""Painted walls: flat, large, only behind the street, and nothing in the labels tells of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.data.plain_walls import paint_walls
from training.data.sample import Sample


def street(height: int = 64, width: int = 128) -> Sample:
    """A sample of noise: "other" above, a car in the middle, a stripe without a class, road below."""
    generator = torch.Generator().manual_seed(0)
    background = torch.full((height, width), 2, dtype=torch.uint8)
    background[height // 2 :] = 0
    foreground = torch.zeros_like(background)
    foreground[height // 4 : height // 2, width // 3 : width // 2] = 1
    background[foreground == 1] = 255
    background[:, 10:12] = 255
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    kinds = torch.where(foreground == 1, 2, 255).to(torch.uint8)
    return Sample(image, foreground, kinds, background, None, background, "noise")


def painted(seed: int, sample: Sample) -> Sample:
    return paint_walls(sample, np.random.default_rng(seed))


def test_walls_stand_behind_objects_ground_and_what_has_no_class() -> None:
    sample = street()
    original = sample.image.clone()
    free = (sample.partial_background == 2) & (sample.foreground == 0)
    shares = []
    for seed in range(50):
        walled = painted(seed, sample)
        changed = (walled.image != original).any(0)
        assert not (changed & ~free).any()
        shares.append(float(changed[free].float().mean()))
        assert vars(walled) | {"image": 0} == vars(sample) | {"image": 0}, "labels are the same objects"
    assert torch.equal(sample.image, original), "the sample may be remembered for other epochs"
    assert 0.1 < np.mean(shares) < 0.7 and len(set(shares)) > 40


def test_walls_are_plain() -> None:
    """Where a wall is painted, neighbours differ by far less than those of the noise that it hides."""
    sample = street()
    for seed in range(20):
        image = painted(seed, sample).image.float()
        inside = (image != sample.image).all(0)
        inside = inside[:, 1:] & inside[:, :-1]
        before = (sample.image[..., 1:].float() - sample.image[..., :-1].float()).abs()
        assert (image[..., 1:] - image[..., :-1]).abs()[:, inside].mean() < before[:, inside].mean() / 3


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 33)])
def test_any_size_goes(size: tuple[int, int]) -> None:
    for seed in range(20):
        assert painted(seed, street(*size)).image.shape == (3, *size)


def test_the_same_generator_paints_the_same_wall() -> None:
    assert torch.equal(painted(3, street()).image, painted(3, street()).image)
    assert not torch.equal(painted(3, street()).image, painted(4, street()).image)
