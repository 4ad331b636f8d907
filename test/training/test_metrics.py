"""Scores equal a count in plain Python; what does not count and what is absent are treated as documented."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassJaccardIndex

from training.data.sample import Batch
from training.measuring.metrics import (
    BinnedConfusion,
    Calibration,
    SceneAnalysis,
    SceneMetrics,
    border_distance,
    interval_names,
    object_area,
)


def random_batch(seed: int, size: tuple[int, int, int] = (2, 9, 13), truth: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)
    foreground = (torch.rand(size, generator=generator) < 0.4).byte()
    background = values[torch.randint(0, 4, size, generator=generator)]
    categories = torch.where(foreground > 0, 24 + torch.randint(0, 10, size, generator=generator), 7).byte()
    return Batch(
        image=torch.zeros(size[0], 3, *size[1:], dtype=torch.uint8),
        foreground=foreground,
        kinds=values[torch.randint(0, 4, size, generator=generator)].masked_fill(foreground == 0, 255),
        partial_background=background.masked_fill(foreground > 0, 255),
        true_background=background if truth else None,
        categories=categories,
        names=[str(number) for number in range(size[0])],
    )


def random_kinds(seed: int, batch: Batch) -> Tensor:
    return torch.rand(len(batch), 3, *batch.kinds.shape[1:], generator=torch.Generator().manual_seed(2000 + seed))


def random_prediction(seed: int, batch: Batch) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 + seed)
    count, height, width = batch.foreground.shape
    foreground = torch.rand(count, 1, height, width, generator=generator)
    return foreground, (4 * torch.rand(count, 3, height, width, generator=generator)).softmax(1)


def pixels(*maps: Tensor) -> list[tuple]:
    """The pixels of several maps of equal shape, as a list of tuples of Python numbers."""
    return list(zip(*[m.flatten().tolist() for m in maps], strict=True))


def counted_scores(pairs: list[tuple[int, int]]) -> dict:
    """mIoU, IoU and accuracy of (predicted, true) pairs, one pixel at a time."""
    pairs = [(predicted, true) for predicted, true in pairs if true != 255]
    ious = []
    for name in range(3):
        both = sum(1 for p, t in pairs if p == name and t == name)
        either = sum(1 for p, t in pairs if p == name or t == name)
        ious.append(both / either if any(t == name for _, t in pairs) else math.nan)
    present = [iou for iou in ious if not math.isnan(iou)]
    return {
        "miou": sum(present) / len(present) if present else math.nan,
        "iou": ious,
        "accuracy": sum(p == t for p, t in pairs) / len(pairs) if pairs else math.nan,
        "pixels": len(pairs),
    }


def assert_scores(found: dict, expected: dict) -> None:
    assert found["pixels"] == expected["pixels"]
    assert found["miou"] == pytest.approx(expected["miou"], nan_ok=True)
    assert list(found["iou"].values()) == pytest.approx(expected["iou"], nan_ok=True)
    assert found["accuracy"] == pytest.approx(expected["accuracy"], nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_scene_metrics_equal_a_count(seed: int, batches: int) -> None:
    metrics = SceneMetrics()
    every, behind, mask, kinds = [], [], [], []
    for number in range(batches):
        batch = random_batch(seed + number)
        foreground, background = random_prediction(seed + number, batch)
        of_kinds = random_kinds(seed + number, batch)
        metrics.update(foreground, background, batch, of_kinds)
        found = pixels(foreground[:, 0], of_kinds.argmax(1), batch.foreground, batch.kinds)
        known = [pixel for pixel in found if not pixel[2] or pixel[3] != 255]
        kinds += [((kind + 1) * (probability > 0.5), (true + 1) * inside) for probability, kind, inside, true in known]
        found = pixels(background.argmax(1), batch.true_background, batch.foreground, foreground[:, 0])
        every += [(p, t) for p, t, _, _ in found]
        behind += [(p, t) for p, t, inside, _ in found if inside]
        mask += [(probability > 0.5, inside == 1) for _, _, inside, probability in found]
    scores = metrics.compute()
    assert_scores(scores["all_region"], counted_scores(every))
    assert_scores(scores["foreground_region"], counted_scores(behind))
    hit, predicted, true = (sum(1 for p, t in mask if test(p, t)) for test in (min, lambda p, _: p, lambda _, t: t))
    either = sum(1 for p, t in mask if p or t)
    assert scores["foreground_mask"] == pytest.approx(
        {"iou": hit / either, "precision": hit / predicted, "recall": hit / true}
    )
    ious = [sum(p == t == k for p, t in kinds) / sum(k in pair for pair in kinds) for k in (1, 2, 3)]
    assert list(scores["foreground_classes"]["iou"].values()) == pytest.approx(ious)
    assert scores["foreground_classes"]["miou"] == pytest.approx(sum(ious) / 3)


def test_miou_agrees_with_torchmetrics() -> None:
    batch = random_batch(1)
    foreground, background = random_prediction(1, batch)
    metrics = SceneMetrics()
    metrics.update(foreground, background, batch)
    other = MulticlassJaccardIndex(3, ignore_index=255)(background.argmax(1), batch.true_background.long())
    assert metrics.compute()["all_region"]["miou"] == pytest.approx(other.item(), abs=1e-6)


def test_pixels_are_pooled_not_images() -> None:
    """A hundred right pixels in one image and one wrong pixel in another: not the mean of the two images."""
    metrics = SceneMetrics()
    for truth, size in ((0, (1, 10, 10)), (1, (1, 1, 1))):
        batch = random_batch(0, size)
        batch.true_background = torch.full(size, truth, dtype=torch.uint8)
        batch.foreground = torch.ones(size, dtype=torch.uint8)
        road = torch.zeros(1, 3, *size[1:])
        road[:, 0] = 1
        metrics.update(torch.ones(1, 1, *size[1:]), road, batch)
    scores = metrics.compute()["foreground_region"]
    assert scores["accuracy"] == pytest.approx(100 / 101)
    assert scores["iou"]["road"] == pytest.approx(100 / 101)


def test_absent_classes_and_empty_sets_are_nan() -> None:
    batch = random_batch(0)
    batch.true_background = torch.zeros_like(batch.foreground)
    road = torch.zeros(2, 3, 9, 13)
    road[:, 0] = 1
    metrics = SceneMetrics()
    metrics.update(batch.foreground[:, None].float(), road, batch)
    scores = metrics.compute()
    assert scores["all_region"]["miou"] == 1.0
    assert math.isnan(scores["all_region"]["iou"]["sidewalk"])
    assert scores["foreground_mask"] == {"iou": 1.0, "precision": 1.0, "recall": 1.0}

    metrics.reset()
    metrics.update(torch.zeros(2, 1, 9, 13), road, random_batch(0, truth=False))
    scores = metrics.compute()
    assert scores["foreground_region"]["pixels"] == 0
    assert math.isnan(scores["foreground_region"]["miou"])
    assert scores["foreground_mask"]["recall"] == 0 and math.isnan(scores["foreground_mask"]["precision"])


def test_a_class_that_the_truth_does_not_have_stays_out_of_the_mean() -> None:
    """A set without sidewalk labels: sidewalk that the network sees costs the others, and is no class itself."""
    batch = random_batch(0)
    batch.true_background = torch.zeros_like(batch.foreground)
    batch.true_background[:, :, 6:] = 2
    predicted = batch.true_background.clone()
    predicted[:, :3, :6] = 1  # a third of the road taken for sidewalk
    metrics = SceneMetrics()
    metrics.update(batch.foreground[:, None].float(), functional.one_hot(predicted.long(), 3).movedim(-1, 1), batch)
    scores = metrics.compute()["all_region"]
    assert math.isnan(scores["iou"]["sidewalk"])
    assert scores["iou"]["road"] == pytest.approx(2 / 3) and scores["iou"]["other"] == 1.0
    assert scores["miou"] == pytest.approx((2 / 3 + 1) / 2)


def test_what_the_network_says_where_truth_is_unknown_does_not_matter() -> None:
    batch = random_batch(3)
    foreground, background = random_prediction(3, batch)
    kinds, inside = random_kinds(3, batch), (batch.foreground > 0)[:, None]
    metrics, other = SceneMetrics(), SceneMetrics()
    metrics.update(foreground, background, batch, kinds)
    changed = torch.where((batch.true_background == 255)[:, None], background.flip(1), background)
    assert not torch.equal(changed.argmax(1), background.argmax(1))
    other.update(foreground, changed, batch, kinds.flip(1).where((batch.kinds == 255)[:, None] & inside, kinds))
    assert metrics.compute() == other.compute()


def test_a_network_that_tells_no_kinds_has_no_score_of_them() -> None:
    batch = random_batch(5)
    metrics = SceneMetrics()
    metrics.update(*random_prediction(5, batch), batch)
    scores = metrics.compute()["foreground_classes"]
    assert math.isnan(scores["miou"]) and all(map(math.isnan, scores["iou"].values()))


def test_logits_and_probabilities_score_the_same() -> None:
    batch = random_batch(4)
    foreground, background = random_prediction(4, batch)
    metrics, other = SceneMetrics(), SceneMetrics()
    kinds = random_kinds(4, batch).softmax(1)
    metrics.update(foreground, background, batch, kinds)
    other.update(foreground, background.log() * 3, batch, kinds.log() * 3)
    assert metrics.compute() == other.compute()


# --- the analyses --------------------------------------------------------------------------------------------------


def chessboard_distance(mask: np.ndarray, limit: int) -> np.ndarray:
    """Distance to the nearest unset pixel, by looking at all of them."""
    result = np.zeros(mask.shape, dtype=int)
    unset = np.argwhere(mask == 0)
    for y, x in np.argwhere(mask != 0):
        distances = np.abs(unset - (y, x)).max(1) if len(unset) else [limit]
        result[y, x] = min(min(distances), limit)
    return result


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99, 1.0])
def test_border_distance_equals_a_search(share: float) -> None:
    mask = (np.random.default_rng(5).random((2, 17, 23)) < share).astype(np.uint8)
    found = border_distance(torch.from_numpy(mask), limit=6)
    for number in range(2):
        assert np.array_equal(found[number].numpy(), chessboard_distance(mask[number], 6))


def flood_fill(mask: np.ndarray) -> np.ndarray:
    """Component numbers in reading order, by flooding from every pixel that is not numbered yet."""
    labels = np.zeros(mask.shape, dtype=int)
    for seed in map(tuple, np.argwhere(mask)):
        if labels[seed]:
            continue
        number, waiting = labels.max() + 1, [seed]
        while waiting:
            y, x = waiting.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not labels[y, x]:
                labels[y, x] = number
                waiting += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return labels


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.tuples(st.integers(1, 14), st.integers(1, 14)))
def test_object_area_equals_a_flood_fill(seed: int, share: float, size: tuple[int, int]) -> None:
    mask = (np.random.default_rng(seed).random(size) < share).astype(np.uint8)
    components = flood_fill(mask)
    expected = np.bincount(components.ravel())[components] * mask
    assert np.array_equal(object_area(torch.from_numpy(mask)[None])[0].numpy(), expected)


def test_object_area() -> None:
    mask = torch.zeros(2, 6, 8, dtype=torch.uint8)
    mask[0, 1:3, 1:4] = 1
    mask[0, 5, 7] = 1
    area = object_area(mask)
    assert (area[0, 1:3, 1:4] == 6).all() and area[0, 5, 7] == 1
    assert area.sum() == 6 * 6 + 1


def test_binned_confusion_equals_a_count() -> None:
    batch = random_batch(6)
    _, background = random_prediction(6, batch)
    bins = torch.randint(-1, 3, batch.foreground.shape, generator=torch.Generator().manual_seed(6))
    predicted, truth = background.argmax(1), batch.true_background.long()
    metric = BinnedConfusion(["near", "far", "deep"])
    metric.update(bins[:1], predicted[:1], truth[:1])
    metric.update(bins[1:], predicted[1:], truth[1:])
    for number, scores in enumerate(metric.compute().values()):
        expected = [(p, t) for b, p, t in pixels(bins, predicted, truth) if b == number]
        assert_scores(scores, counted_scores(expected))


def test_calibration_equals_a_count() -> None:
    generator = torch.Generator().manual_seed(7)
    confidence = torch.rand(500, generator=generator)
    confidence[:2] = torch.tensor([0.0, 1.0])
    correct = torch.rand(500, generator=generator) < confidence.square()
    metric = Calibration(bins=5)
    metric.update(confidence[:200], correct[:200])
    metric.update(confidence[200:], correct[200:])
    scores = metric.compute()
    error = 0.0
    for number, entry in enumerate(scores["bins"]):
        inside = [(c, r) for c, r in pixels(confidence, correct) if min(int(np.float32(c) * 5), 4) == number]
        assert entry["pixels"] == len(inside)
        mean = sum(c for c, _ in inside) / len(inside)
        right = sum(r for _, r in inside) / len(inside)
        assert (entry["confidence"], entry["accuracy"]) == pytest.approx((mean, right))
        error += len(inside) / 500 * abs(mean - right)
    assert scores["ece"] == pytest.approx(error)


def test_analysis_bins_by_depth_size_and_category() -> None:
    """One car, 20x20 in an image of 40x50: a fifth of it; the prediction is right only on its outer four rings."""
    batch = random_batch(0, (1, 40, 50))
    batch.foreground.zero_()[0, 10:30, 10:30] = 1
    batch.categories = torch.where(batch.foreground > 0, 26, 7).byte()
    batch.true_background = torch.zeros_like(batch.foreground)
    depth = border_distance(batch.foreground, 40)
    probabilities = torch.full((1, 3, 40, 50), 0.1)
    probabilities[:, 0] = torch.where(depth <= 4, 0.8, 0.1)
    probabilities[:, 2] = torch.where(depth <= 4, 0.1, 0.8)

    analysis = SceneAnalysis({24: "person", 26: "car"})
    analysis.update(probabilities, batch)
    scores = analysis.compute()
    assert {name: (s["accuracy"], s["pixels"]) for name, s in scores["by_distance"].items() if s["pixels"]} == {
        "1-2 px": (1.0, 20 * 20 - 16 * 16),
        "3-4 px": (1.0, 16 * 16 - 12 * 12),
        "5-8 px": (0.0, 12 * 12 - 4 * 4),
        "9-16 px": (0.0, 4 * 4),
    }
    assert [name for name, s in scores["by_size"].items() if s["pixels"]] == ["over 6.4 %"]
    assert scores["by_category"]["car"]["pixels"] == 400
    assert scores["by_category"]["car"]["accuracy"] == pytest.approx(1 - 144 / 400)
    assert scores["by_category"]["person"]["pixels"] == 0
    assert scores["calibration"]["foreground_region"]["ece"] == pytest.approx(0.8 - (1 - 144 / 400))
    assert scores["calibration"]["all_region"]["ece"] == pytest.approx((1 - 144 / 2000) - 0.8)


def test_interval_names() -> None:
    assert interval_names((1, 3, 5, 6)) == ["1-2", "3-4", "5", "6+"]
