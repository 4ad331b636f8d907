"""Pasted occluders change exactly the pixels of the objects, know the truth behind them, and repeat by seed."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from conftest import shared
from torch.utils.data import DataLoader, Dataset

from training.data.datasets import Cityscapes, Kitti
from training.data.pasted_occluders import Occluder, PastedOccluders, cut_out, paste
from training.data.sample import Sample, collate

HEIGHT, WIDTH = 48, 96


class Streets(Dataset[Sample]):
    """Images of one colour with a few rectangular objects each; labels are random blocks."""

    def __init__(self, images: int = 6, objects: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)):
        self.images, self.objects, self.size = images, objects, size
        self.reads = 0

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Sample:
        self.reads += 1
        generator = np.random.default_rng(index)
        height, width = self.size
        blocks = generator.choice(np.array([0, 1, 2, 255], np.uint8), (height // 8, width // 8), p=[0.3, 0.3, 0.3, 0.1])
        background = torch.from_numpy(np.kron(blocks, np.ones((8, 8), np.uint8)))
        foreground = torch.zeros(height, width, dtype=torch.uint8)
        for _ in range(self.objects):
            top, left = generator.integers(1, height - 12), generator.integers(0, width - 12)
            foreground[top : top + generator.integers(4, 12), left : left + generator.integers(4, 12)] = 1
        return Sample(
            image=torch.full((3, height, width), 20 + 3 * index, dtype=torch.uint8),
            foreground=foreground,
            kinds=torch.where(foreground > 0, index % 3, 255).byte(),
            partial_background=background.masked_fill(foreground > 0, 255),
            true_background=None,
            categories=torch.where(foreground > 0, 26 + index, 7).byte(),
            name=f"street {index}",
        )


def equal(one: Sample, other: Sample) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("image", "foreground", "kinds", "partial_background", "true_background", "categories")
    )


def test_only_the_pixels_of_objects_change_and_truth_is_the_receivers_label() -> None:
    streets = Streets()
    pasted_pixels = 0
    for index in range(len(streets)):
        before, after = streets[index], PastedOccluders(streets, seed=3)[index]
        # Every image has its own category id: a pixel with another one was pasted.
        pasted = (after.categories != before.categories) & (after.categories != 7)
        pasted_pixels += int(pasted.sum())
        assert torch.equal(after.image[:, ~pasted], before.image[:, ~pasted])
        assert torch.equal(after.categories[~pasted], before.categories[~pasted])
        assert torch.equal(after.kinds[~pasted], before.kinds[~pasted])
        assert torch.equal(after.kinds[pasted], (after.categories[pasted] - 26) % 3), "objects keep their kind"
        assert torch.equal(after.foreground > 0, (before.foreground > 0) | pasted)
        assert (after.partial_background[pasted] == 255).all()
        assert torch.equal(after.partial_background[~pasted], before.partial_background[~pasted])
        assert torch.equal(after.true_background, before.partial_background)
        # Behind an object of its own nothing is known; behind at least half of what was pasted something is.
        assert (after.true_background[before.foreground > 0] == 255).all()
        if pasted.any():
            assert (after.true_background[pasted] != 255).float().mean() >= 0.4
    assert pasted_pixels > 500


def test_pixels_of_an_object_are_the_donors_but_for_a_soft_edge() -> None:
    streets = Streets(objects=0)
    mask = torch.zeros(10, 12, dtype=torch.bool)
    mask[1:9, 2:11] = True
    mask[4, 6] = False
    kinds, categories = torch.full((10, 12), 2).byte(), torch.full((10, 12), 26).byte()
    occluder = Occluder(5, 7, torch.full((3, 10, 12), 200, dtype=torch.uint8), mask, kinds, categories)
    before = streets[0]
    after = paste(before, [occluder])
    box = after.image[0, 5:15, 7:19]
    assert (box[~mask] == 20).all()
    assert (box[3:7, 8:10] == 200).all()
    assert torch.equal(box[1, 3:10], torch.full((7,), round(20 + 180 * 2 / 3), dtype=torch.uint8))
    assert torch.equal(after.foreground[5:15, 7:19] > 0, mask)
    assert (before.image == 20).all() and before.foreground.sum() == 0


def test_same_seed_same_sample_in_any_order_worker_and_process() -> None:
    first = [PastedOccluders(Streets(), seed=1)[index] for index in range(6)]
    backwards = PastedOccluders(Streets(), seed=1, cache=1)
    for index in reversed(range(6)):
        assert equal(backwards[index], first[index])
    loader = DataLoader(PastedOccluders(Streets(), seed=1), batch_size=2, num_workers=2, collate_fn=collate)
    batches = list(loader)
    for index, sample in enumerate(first):
        assert torch.equal(batches[index // 2].image[index % 2], sample.image)
    copied = pickle.loads(pickle.dumps(PastedOccluders(Streets(), seed=1)))
    assert equal(copied[4], first[4])


def test_another_seed_or_generator_gives_other_objects() -> None:
    dataset, other = PastedOccluders(Streets(), seed=1), PastedOccluders(Streets(), seed=2)
    first = [dataset[index] for index in range(6)]
    assert not all(equal(other[index], sample) for index, sample in enumerate(first))
    drawn = [dataset.sample(index, np.random.default_rng(9)) for index in range(6)]
    assert not all(equal(one, two) for one, two in zip(first, drawn, strict=True))
    assert all(equal(dataset.sample(i, np.random.default_rng(9)), sample) for i, sample in enumerate(drawn))
    assert all(equal(dataset[index], sample) for index, sample in enumerate(first))


def test_probability_zero_leaves_images_alone() -> None:
    streets = Streets()
    sample = PastedOccluders(streets, probability=0)[2]
    assert torch.equal(sample.image, streets[2].image)
    assert torch.equal(sample.true_background, streets[2].partial_background)
    dataset = PastedOccluders(Streets(images=60), probability=0.5)
    changed = sum(not torch.equal(dataset[i].image, dataset.dataset[i].image) for i in range(60))
    assert 15 <= changed <= 45


def test_an_image_never_receives_its_own_objects() -> None:
    dataset = PastedOccluders(Streets(images=2), most=9)
    for index in range(2):
        for seed in range(5):
            own = dataset.dataset[index]
            after = dataset.sample(index, np.random.default_rng(seed))
            gained = (after.foreground > 0) & (own.foreground == 0)
            assert (after.categories[gained] == 26 + (1 - index)).all()


def test_true_background_of_the_receiver_is_kept() -> None:
    sample = Streets()[0]
    sample.true_background = torch.full_like(sample.partial_background, 2)
    occluder = cut_out(Streets()[1], 0.001, 0.5)[0]
    assert (paste(sample, [occluder]).true_background == 2).all()


def test_cut_out_leaves_out_what_does_not_fit() -> None:
    street = Streets(objects=0)[0]
    street.foreground[0:10, 5:20] = 1  # touches the upper border
    street.foreground[20:30, 40:60] = 1
    street.foreground[40, 80] = 1  # one pixel
    objects = cut_out(street, min_area=0.001, max_area=0.2)
    assert [(o.top, o.left, tuple(o.mask.shape)) for o in objects] == [(20, 40, (10, 20))]
    assert cut_out(street, min_area=0.001, max_area=0.04) == []


def test_objects_that_stick_out_of_a_smaller_image_are_not_pasted() -> None:
    class TwoSizes(Streets):
        def __getitem__(self, index: int) -> Sample:
            return Streets(objects=3 * index, size=(HEIGHT, WIDTH if index else 40))[index]

    after = PastedOccluders(TwoSizes(images=4), most=9)[0]
    assert after.image.shape == (3, HEIGHT, 40)


def test_donors_are_read_once_while_they_are_in_the_cache() -> None:
    streets = Streets()
    dataset = PastedOccluders(streets)
    for _ in range(10):
        for index in range(6):
            dataset[index]
    assert streets.reads <= 60 + 6


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="set of two or more"):
        PastedOccluders(Streets(images=1))
    for wrong in ({"most": 0}, {"probability": 1.5}, {"min_area": 0.5, "max_area": 0.1}, {"cache": 0}):
        with pytest.raises(ValueError, match="must be 1 or more"):
            PastedOccluders(Streets(), **wrong)
    with pytest.raises(IndexError):
        PastedOccluders(Streets())[6]


@pytest.mark.parametrize("name", ["cityscapes", "kitti"])
def test_on_real_streets(name: str) -> None:
    real = Cityscapes(shared("data/cityscapes_256"), "val") if name == "cityscapes" else Kitti(shared("data/kitti_dev"))
    dataset = PastedOccluders(real, seed=0)
    gained = 0
    for index in range(0, 60, 10):
        before, after = real[index], dataset[index]
        truth = before.partial_background if before.true_background is None else before.true_background
        assert torch.equal(after.true_background, truth)
        gained += int((after.foreground > before.foreground).sum())
        unchanged = after.foreground == before.foreground
        same_label = after.categories == before.categories
        assert torch.equal(
            after.image[:, unchanged & same_label & (before.foreground == 0)],
            before.image[:, unchanged & same_label & (before.foreground == 0)],
        )
    assert gained / 6 / before.foreground.numel() > 0.005
