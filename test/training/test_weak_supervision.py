"""The losses ignore what nobody annotated, weigh what they should, and fake masks have the promised statistics."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from training.configuration import PAPER_CLASS_WEIGHTS, LossOptions
from training.data.fake_masks import draw_silhouettes, fake_mask
from training.learning.losses import (
    Supervision,
    background_loss,
    dice_loss,
    foreground_loss,
    greatest_within,
    losses,
    near_other_class,
    supervision,
    without_doubtful_border,
)

UNWEIGHTED = LossOptions(class_weights=None)
SIZE = (2, 12, 20)


def targets(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Foreground 0/1/255 and partial background 0/1/2/255, unknown under foreground; (2, 12, 20)."""
    generator = np.random.default_rng(seed)
    foreground = generator.choice(np.array([0, 1, 255], np.uint8), SIZE, p=[0.7, 0.2, 0.1])
    background = generator.choice(np.array([0, 1, 2, 255], np.uint8), SIZE, p=[0.4, 0.1, 0.4, 0.1])
    background[foreground != 0] = 255
    return torch.from_numpy(foreground), torch.from_numpy(background)


def logits(seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    background = scale * torch.randn(2, 3, 12, 20, generator=generator)
    foreground = scale * torch.randn(2, 1, 12, 20, generator=generator)
    return background.requires_grad_(), foreground.requires_grad_()


def loss_of(options: LossOptions, truth: Supervision | None = None, seed: int = 0):
    truth = supervision(*targets(seed), None, options) if truth is None else truth
    return losses(*logits(seed), truth, options)


# --- ignore rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        UNWEIGHTED,
        LossOptions(),
        LossOptions(hard_fraction=0.3),
        LossOptions(hidden_weight=4.0),
        LossOptions(border_weight=4.0),
        LossOptions(mask_overlap="dice", doubtful_border=2),
    ],
)
def test_ignored_pixels_have_exactly_zero_gradient_and_all_others_some(options: LossOptions) -> None:
    foreground, background = targets()
    truth = supervision(foreground, background, None, options)
    predicted, mask = logits()
    losses(predicted, mask, truth, options).total.backward()
    ignored = background == 255
    assert ignored.any() and (truth.foreground == 255).any()
    assert predicted.grad.abs().amax(1)[ignored].max() == 0
    assert mask.grad[:, 0][truth.foreground == 255].abs().max() == 0
    assert (mask.grad[:, 0][truth.foreground != 255] != 0).all()
    if options.hard_fraction == 1:
        assert (predicted.grad.abs().amax(1)[~ignored] > 0).all()


def test_a_batch_without_any_known_pixel_costs_nothing() -> None:
    unknown = torch.full(SIZE, 255, dtype=torch.uint8)
    predicted, mask = logits()
    total = losses(predicted, mask, supervision(unknown, unknown, None, LossOptions()), LossOptions()).total
    total.backward()
    assert total == 0 and predicted.grad.abs().sum() == 0 and mask.grad.abs().sum() == 0


@pytest.mark.parametrize("reach", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("size", [(9, 13), (3, 2)])
def test_the_greatest_value_around_is_that_of_max_pooling(reach: int, size: tuple[int, int]) -> None:
    values = torch.randn(2, 3, *size, generator=torch.manual_seed(0))
    pooled = functional.max_pool2d(values, 2 * reach + 1, stride=1, padding=reach)
    assert torch.equal(greatest_within(values, reach), pooled)


def test_doubtful_border_leaves_out_unlabeled_pixels_near_objects_only() -> None:
    foreground = torch.zeros(1, 9, 9, dtype=torch.uint8)
    foreground[0, 4, 4] = 1
    background = torch.full((1, 9, 9), 255, dtype=torch.uint8)
    background[0, :, :4] = 2  # labelled on the left, also beside the object
    result = without_doubtful_border(foreground, background, 2)
    expected = torch.zeros(1, 9, 9, dtype=torch.uint8)
    expected[0, 2:7, 4:7] = 255
    expected[0, 4, 4] = 1
    assert torch.equal(result, expected)
    assert torch.equal(without_doubtful_border(foreground, background, 0), foreground)


# --- against torch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, PAPER_CLASS_WEIGHTS, (1.0, 3.0, 0.8)])
def test_losses_are_torchs_own(weights: tuple[float, float, float] | None) -> None:
    foreground, background = targets()
    predicted, mask = logits()
    options = LossOptions(class_weights=weights)
    result = losses(predicted, mask, supervision(foreground, background, None, options), options)
    expected = functional.cross_entropy(
        predicted, background.long(), weight=None if weights is None else torch.tensor(weights), ignore_index=255
    )
    known = foreground != 255
    expected_mask = functional.binary_cross_entropy_with_logits(mask[:, 0][known], (foreground[known] == 1).float())
    torch.testing.assert_close(result.background, expected.detach())
    torch.testing.assert_close(result.foreground, expected_mask.detach())
    torch.testing.assert_close(result.total, expected + expected_mask)


def test_weights_of_the_sum() -> None:
    plain = loss_of(UNWEIGHTED)
    weighted = loss_of(LossOptions(class_weights=None, background_weight=0.25, foreground_weight=3.0))
    torch.testing.assert_close(weighted.total, 0.25 * plain.background + 3 * plain.foreground)


def test_kinds_of_objects_are_told_apart_where_they_are_known_and_nothing_else_learns_of_it() -> None:
    foreground, background = targets()
    generator = torch.Generator().manual_seed(1)
    kinds = torch.where(foreground == 1, torch.randint(0, 4, SIZE, generator=generator), 255).byte()
    kinds[kinds == 3] = 255  # objects of unknown kind
    options = LossOptions(class_weights=None, kind_weight=0.5)
    truth = supervision(foreground, background, None, options, kinds)
    predicted, mask = logits()
    of_kinds = torch.randn(2, 3, 12, 20, generator=generator).requires_grad_()
    result = losses(predicted, mask, truth, options, kind_logits=of_kinds)
    expected = functional.cross_entropy(of_kinds.detach(), kinds.long(), ignore_index=255)
    torch.testing.assert_close(result.kinds, expected)
    without = losses(predicted, mask, truth, options)
    torch.testing.assert_close(result.total, without.total + 0.5 * expected)
    (result.total - without.total).backward()
    assert of_kinds.grad.abs().amax(1)[kinds == 255].max() == 0 < of_kinds.grad.abs().amax(1)[kinds != 255].min()
    assert predicted.grad.abs().max() == mask.grad.abs().max() == 0
    unknown = supervision(foreground, background, None, options)
    assert losses(predicted, mask, unknown, options, kind_logits=of_kinds).kinds == 0


# --- options ---------------------------------------------------------------------------------------------------------


def test_hidden_pixels_count_more_under_objects_and_fake_masks() -> None:
    foreground, background = targets()
    background[0, 0] = torch.where(foreground[0, 0] == 1, 1, background[0, 0])  # truth behind some object
    fake = torch.zeros(2, 1, 12, 20, dtype=torch.bool)
    fake[:, :, 3:7, 2:9] = True
    weight = supervision(foreground, background, fake, LossOptions(class_weights=None, hidden_weight=2.5))
    known = (background != 255).float()
    expected = torch.where(fake[:, 0] | (foreground == 1), 2.5 * known, known)
    assert torch.equal(weight.background_weight, expected)
    assert (expected == 2.5).any() and (expected == 1).any()


@pytest.mark.parametrize("height", [12, 128])
def test_near_another_class_is_what_a_search_around_each_pixel_finds(height: int) -> None:
    reach = {12: 1, 128: 2}[height]
    background = np.random.default_rng(1).choice(
        np.array([0, 1, 2, 255], np.uint8), (2, height, 30), p=[0.2, 0, 0.02, 0.78]
    )
    found = near_other_class(torch.from_numpy(background)).numpy()
    for image, row, column in np.ndindex(background.shape):
        around = background[image, max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        assert found[image, row, column] == (len(set(around.flatten().tolist()) - {255}) > 1)
    assert 0 < found.mean() < 1


def test_borders_between_background_classes_count_more_but_not_what_is_unknown_there() -> None:
    foreground = torch.zeros(1, 64, 8, dtype=torch.uint8)
    background = torch.zeros(1, 64, 8, dtype=torch.uint8)
    background[:, :, 5:] = 1
    background[:, :9] = foreground[:, :9] = 1
    background[:, :3] = 255  # a car before the border
    options = LossOptions(class_weights=(1.0, 2.0, 1.0), border_weight=3.0)
    weight = supervision(foreground, background, None, options).background_weight[0]
    assert weight[40].tolist() == [1, 1, 1, 1, 3, 6, 2, 2]
    assert weight[8].tolist() == [6, 6, 6, 6, 6, 6, 2, 2] and weight[:3].max() == 0
    unchanged = supervision(foreground, background, None, LossOptions(class_weights=(1.0, 2.0, 1.0)))
    assert unchanged.background_weight.max() == 2


def test_dice_is_zero_for_a_perfect_mask_and_near_one_for_a_disjoint_one() -> None:
    foreground = torch.zeros(1, 12, 20, dtype=torch.uint8)
    foreground[0, 2:9, 3:15] = 1
    perfect = (foreground.float()[:, None] - 0.5) * 100
    assert dice_loss(perfect, foreground, smoothing=0) < 1e-5
    assert dice_loss(-perfect, foreground, smoothing=0) > 0.999
    # Two thirds of the mask found, nothing beside it: 2 * 2/3 / (1 + 2/3) = 0.8.
    part = perfect.clone()
    part[0, 0, :, 11:] = -50
    assert dice_loss(part, foreground, smoothing=0) == pytest.approx(0.2, abs=1e-5)


def test_dice_adds_to_the_total_with_its_weight() -> None:
    plain, dice = loss_of(UNWEIGHTED), loss_of(LossOptions(None, mask_overlap="dice", mask_overlap_weight=0.5))
    assert 0 < dice.mask_overlap < 1 and plain.mask_overlap == 0
    torch.testing.assert_close(dice.total, plain.total + 0.5 * dice.mask_overlap)


def test_dice_hardly_moves_an_image_without_foreground() -> None:
    mask = torch.zeros(1, 1, 64, 64, requires_grad=True)
    dice_loss(mask, torch.zeros(1, 64, 64, dtype=torch.uint8)).backward()
    assert mask.grad.abs().sum() < 0.02


def test_hard_fraction_keeps_the_hardest_pixels_of_each_image() -> None:
    options = LossOptions(class_weights=None, hard_fraction=0.25)
    truth = supervision(*targets(), None, options)
    predicted, _ = logits()
    entropy = functional.cross_entropy(predicted, truth.background.long(), ignore_index=255, reduction="none").detach()
    background_loss(predicted, truth, options, truth.totals()[0]).backward()
    for image in range(2):
        known = truth.background[image] != 255
        kept = predicted.grad[image].abs().amax(0) > 0
        assert int(kept.sum()) == int(np.ceil(0.25 * int(known.sum())))
        assert entropy[image][kept].min() >= entropy[image][known & ~kept].max()


def test_the_hardest_pixels_beside_objects_count_as_much_as_objects_and_the_others_not_at_all() -> None:
    options = LossOptions(foreground_hard_fraction=0.25)
    foreground, background = targets()
    foreground[0] = torch.where(foreground[0] == 0, 255, foreground[0])  # an image without any
    truth = supervision(foreground, background, None, options)
    _, mask = logits()
    entropy = functional.binary_cross_entropy_with_logits(
        mask[:, 0], (foreground == 1).float(), reduction="none"
    ).detach()
    negative = foreground[1] == 0
    count = int(np.ceil(0.25 * int(negative.sum())))
    loss = foreground_loss(mask, truth, options, truth.totals()[1])
    loss.backward()
    gradient = mask.grad[:, 0]
    kept = negative & (gradient[1] != 0)
    assert int(kept.sum()) == count and entropy[1][kept].min() >= entropy[1][negative & ~kept].max()
    assert (gradient[foreground == 1] != 0).all() and gradient[foreground == 255].abs().max() == 0
    hard = entropy[1][negative].topk(count).values.sum()
    positives = int((foreground == 1).sum())
    expected = (entropy[foreground == 1].sum() + hard) / (positives + 0.25 * int(negative.sum()))
    torch.testing.assert_close(loss.detach(), expected)


def test_parts_of_a_batch_with_shared_totals_sum_to_the_whole() -> None:
    for options in (
        LossOptions(),
        LossOptions(mask_overlap="dice", hidden_weight=2, hard_fraction=0.5),
        LossOptions(border_weight=3),
        LossOptions(foreground_hard_fraction=0.25, doubtful_border=1),
    ):
        predicted, mask = logits()
        truth = supervision(*targets(), None, options)
        whole = losses(predicted, mask, truth, options)
        parts = [
            losses(predicted[image], mask[image], truth[image], options, totals=truth.totals() / 2).total
            for image in (slice(0, 1), slice(1, 2))
        ]
        torch.testing.assert_close(torch.stack(parts).mean(), whole.total)


# --- fake masks ------------------------------------------------------------------------------------------------------


def single_boxes(count: int, sizes: tuple[float, float] = (0.1, 0.4), height: int = 100, width: int = 200):
    """(count, 4): height, width, top, left of single rectangles."""
    generator = np.random.default_rng(5)
    boxes = []
    for _ in range(count):
        mask = fake_mask(height, width, generator, count=1, sizes=sizes)[0]
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert int(mask.sum()) == len(rows) * len(columns), "one solid rectangle"
        boxes.append([len(rows), len(columns), int(rows[0]), int(columns[0])])
    return np.array(boxes, float)


def test_rectangles_are_uniform_in_size_and_place() -> None:
    boxes = single_boxes(3000)
    for size, extent in ((boxes[:, 0], 100), (boxes[:, 1], 200)):
        share = size / extent
        assert share.min() >= 0.095 and share.max() <= 0.405
        # Mean and deviation of a uniform distribution over 0.1..0.4; five standard errors either way.
        assert share.mean() == pytest.approx(0.25, abs=5 * 0.0866 / np.sqrt(3000))
        assert share.std() == pytest.approx(0.3 / np.sqrt(12), rel=0.05)
    place = boxes[:, 2] / (100 - boxes[:, 0])
    assert place.min() == 0 and place.max() == 1
    assert place.mean() == pytest.approx(0.5, abs=5 * 0.29 / np.sqrt(3000))
    assert abs(np.corrcoef(boxes[:, 0], boxes[:, 1])[0, 1]) < 0.1, "height and width are independent"


def test_three_rectangles_cover_what_three_independent_ones_do() -> None:
    generator = np.random.default_rng(0)
    covered = np.mean([fake_mask(64, 128, generator).float().mean().item() for _ in range(1000)])
    one = np.mean([fake_mask(64, 128, generator, count=1).float().mean().item() for _ in range(1000)])
    assert one == pytest.approx(0.0625, rel=0.1)
    assert 2 * one < covered < 3 * one, "they may overlap"


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    count=st.integers(0, 4),
    low=st.floats(0.01, 1),
    high=st.floats(0.01, 1),
)
@settings(max_examples=60, deadline=None)
def test_any_size_of_mask_works(height: int, width: int, count: int, low: float, high: float) -> None:
    sizes = (min(low, high), max(low, high))
    mask = fake_mask(height, width, np.random.default_rng(0), count=count, sizes=sizes)
    assert mask.shape == (1, height, width) and mask.dtype == torch.bool
    assert bool(mask.any()) == (count > 0)


def test_fake_masks_repeat_by_seed() -> None:
    one, same, other = (fake_mask(32, 64, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)


def arrow() -> torch.Tensor:
    """(20, 60) bool: a shape that is no rectangle, and is not its mirror image."""
    shape = torch.zeros(20, 60, dtype=torch.bool)
    shape[8:12, :40] = True
    for column in range(40, 60):
        shape[(column - 40) // 2 : 20 - (column - 40) // 2, column] = True
    return shape


def test_silhouettes_keep_their_shape_within_the_bounds_of_size() -> None:
    generator, shares, lefts = np.random.default_rng(2), [], []
    for _ in range(300):
        mask = fake_mask(100, 200, generator, count=1, silhouettes=[arrow()])[0]
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        own = torch.nn.functional.interpolate(arrow()[None, None].float(), size=box.shape, mode="nearest-exact")[0, 0]
        assert (box == own.bool()).float().mean() > 0.9
        shares.append(box.shape[1] / 200)
        lefts.append(float(columns[0]) / (200 - box.shape[1]))
    assert min(shares) >= 0.09 and max(shares) <= 0.41, "the larger share is that of the width, 0.3 against 0.2"
    assert np.mean(shares) == pytest.approx(0.25, abs=0.03)
    assert min(lefts) < 0.05 and max(lefts) > 0.95


def test_what_is_missing_of_silhouettes_are_rectangles() -> None:
    plain = fake_mask(100, 200, np.random.default_rng(4), count=2)
    assert torch.equal(fake_mask(100, 200, np.random.default_rng(4), count=2, silhouettes=[]), plain)
    mixed = fake_mask(100, 200, np.random.default_rng(4), count=2, sizes=(0.3, 0.3), silhouettes=[arrow()])[0]
    assert mixed.sum() > 30 * 60, "the rectangle, and most of the arrow"
    alone = fake_mask(100, 200, np.random.default_rng(4), count=1, sizes=(0.3, 0.3), silhouettes=[arrow(), arrow()])
    assert alone.sum() < 20 * 60


def test_silhouettes_are_those_of_objects_of_images_that_have_some() -> None:
    objects = [SimpleNamespace(mask=torch.ones(1, width, dtype=torch.bool)) for width in range(1, 6)]
    generator = np.random.default_rng(0)
    assert draw_silhouettes([[]], generator, 3) == []
    for _ in range(5):
        widths = [shape.shape[1] for shape in draw_silhouettes([objects], generator, 3)]
        assert len(widths) == len(set(widths)) == 3
    found = [len(draw_silhouettes([[], objects[:2]], generator, 3)) for _ in range(50)]
    assert max(found) == 3 and np.mean(found) > 2
