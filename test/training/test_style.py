"""An image gets another one's colours, the same from a worker and on a device, and keeps what is in it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from training.configuration import AugmentationOptions
from training.data.augmentation import Draw, Draws, augment_batch, augment_sample, draw
from training.data.style import Styles, color_map, statistics


def photo(seed: int, contrast: float = 12.0, tint: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """(3, 64, 96) uint8 around 110 plus `tint`; far enough from 0 and 255."""
    noise = np.random.default_rng(seed).standard_normal((3, 64, 96)) * contrast
    return torch.from_numpy(110 + np.array(tint)[:, None, None] + noise).round().byte()


def styled(image: Tensor, other: Tensor) -> Draw:
    drawn = draw((64, 96), AugmentationOptions(), np.random.default_rng(0))
    return replace(drawn, operations={"style": (color_map(statistics(image), statistics(other)), 0)})


def test_an_image_gets_the_statistics_of_the_other_one() -> None:
    image, other = photo(0), photo(1, 18.0, (30, 0, -40))
    labels = torch.zeros(1, 64, 96, dtype=torch.uint8)
    result, _ = augment_sample(image, labels, styled(image, other))
    assert (
        np.abs(statistics(result) - statistics(other)).max() < 0.5 < np.abs(statistics(image) - statistics(other)).max()
    )
    shown = torch.corrcoef(torch.stack([image.float().flatten(), result.float().flatten()]))
    assert shown[0, 1] > 0.4, "what is in the image stays"
    same, _ = augment_sample(image, labels, styled(image, image))
    assert (same.int() - image.int()).abs().max() <= 1


def test_contrast_is_changed_within_bounds() -> None:
    image, other = photo(0, 4.0), photo(1, 30.0)
    result, _ = augment_sample(image, torch.zeros(0, 64, 96, dtype=torch.uint8), styled(image, other))
    assert np.allclose(statistics(result)[1], 2 * statistics(image)[1], rtol=0.05)
    assert np.isfinite(color_map(statistics(torch.full((3, 64, 96), 90, dtype=torch.uint8)), statistics(other))).all()


def test_a_batch_gets_the_colours_of_its_samples() -> None:
    images = [photo(seed) for seed in range(3)]
    drawn = [styled(image, photo(9, 15.0, (0, 10 * number, 20))) for number, image in enumerate(images)]
    labels = torch.zeros(1, 64, 96, dtype=torch.uint8)
    batch, _ = augment_batch(torch.stack(images), labels.repeat(3, 1, 1, 1), Draws.of(drawn))
    for one, image, result in zip(drawn, images, batch, strict=True):
        assert (augment_sample(image, labels, one)[0].int() - result.int()).abs().max() <= 1


def test_each_dataset_gives_as_many_styles_and_images_are_read_once() -> None:
    reads: list[int] = []

    class Images(list):
        def __getitem__(self, index: int) -> SimpleNamespace:
            reads.append(index)
            return SimpleNamespace(image=super().__getitem__(index))

    styles = Styles([Images([photo(0)]), Images([photo(seed, 12.0, (0, 0, 60)) for seed in range(1, 5)])])
    generator = np.random.default_rng(0)
    drawn = [styles.draw(generator)[0] for _ in range(200)]
    assert 70 < sum(np.array_equal(means, statistics(photo(0))[0]) for means in drawn) < 130
    assert len(reads) == 5
