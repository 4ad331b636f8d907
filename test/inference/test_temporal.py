"""What a camera saw before steadies its results: less flicker, nothing smeared, nothing kept over jumps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sfi_ros.errors import OptionError
from sfi_ros.inference import InferenceEngine
from sfi_ros.inference.decision import decide_on_host, kinds_on_host
from sfi_ros.inference.temporal import LONGEST_GAP, TemporalFilter
from sfi_ros.synthetic import SyntheticStreet

SIZE = (96, 160)


def texture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Blotches that a flow can be found from."""
    noise = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def shifted(image: np.ndarray, pixels: int) -> np.ndarray:
    return np.roll(image, pixels, axis=1)


def probabilities(foreground: np.ndarray, classes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Of a network that is sure on average and wavers by 40 % from frame to frame and place to place."""
    planes = np.stack([foreground, *(classes == index for index in range(3))]).astype(np.float32) * 0.4 + 0.3
    planes += cv2.GaussianBlur(generator.normal(0, 1, (*SIZE, 4)), (0, 0), 3).transpose(2, 0, 1)
    return np.clip(255 * planes, 0, 255).astype(np.uint8)


def test_kinds_of_objects_are_steadied_as_objects_are():
    generator, memory, grey = np.random.default_rng(0), TemporalFilter(), texture(1)
    kinds = np.digitize(texture(3), (100, 150))
    wrong = np.zeros((2, 12))
    for step in range(12):
        planes = probabilities(texture(2) > 150, kinds, generator)
        steadied = memory(grey, np.concatenate([planes, planes[1:]]))
        assert steadied.shape == (7, *SIZE)
        for row, result in enumerate((planes[1:], steadied[4:])):
            wrong[row, step] = np.mean(kinds_on_host(np.concatenate([planes, result])) != kinds)
    alone, with_memory = wrong[:, 3:].mean(1)
    assert alone > 0.004
    assert with_memory < alone / 2
    np.testing.assert_array_equal(memory(grey, planes), planes, "weights that tell none begin anew")
    assert memory(grey, planes).shape == (4, *SIZE)


def decided(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    foreground, background, *_ = decide_on_host(planes, planes.shape[1:], 0.5)
    return foreground, background


@pytest.mark.parametrize("motion", [0, 3])
def test_places_that_waver_are_steadied_also_when_they_move(motion):
    generator, memory = np.random.default_rng(0), TemporalFilter()
    grey = texture(1)
    foreground, classes = texture(2) > 150, np.digitize(texture(3), (100, 150))
    wrong = np.zeros((2, 12))
    for step in range(12):
        street = [shifted(image, motion * step) for image in (grey, foreground, classes)]
        planes = probabilities(*street[1:], generator)
        inner = np.s_[:, 12:-12]  # the picture turns round at its sides, which no street does
        for row, result in enumerate((planes, memory(street[0], planes))):
            objects, background = decided(result)
            wrong[row, step] = np.mean((objects != street[1])[inner] | (background != street[2])[inner])
    alone, steadied = wrong[:, 3:].mean(1)
    assert alone > 0.02
    assert steadied < alone / 2


def test_an_object_that_moves_over_the_street_leaves_no_trail():
    memory, ground, thing = TemporalFilter(), texture(1), 255 - texture(2, (40, 30)) // 3
    for step in range(20):
        left = 10 + 4 * step
        grey, foreground = ground.copy(), np.zeros(SIZE, np.uint8)
        grey[30:70, left : left + 30], foreground[30:70, left : left + 30] = thing, 1
        planes = 255 * np.stack([foreground, 1 - foreground, np.zeros_like(foreground), foreground])
        mask, _ = decided(memory(grey, planes))
        assert np.logical_and(mask, foreground).sum() / np.logical_or(mask, foreground).sum() > 0.97, step


def test_nothing_is_kept_over_a_cut_a_jump_in_time_or_another_size():
    before, after = (np.full((4, *SIZE), value, np.uint8) for value in (200, 20))
    memory = TemporalFilter()

    def next_result(grey: np.ndarray, stamp: float, planes: np.ndarray = after) -> np.ndarray:
        memory.follow(stamp)
        return memory(grey, planes)

    def seen_before() -> None:
        memory.reset()
        next_result(texture(1), 10.0, before)

    seen_before()
    assert next_result(texture(1), 10.1).mean() > 100  # it does keep
    seen_before()
    cut = next_result(255 * (texture(2) > texture(1)).astype(np.uint8), 10.1)
    assert np.mean(cut == after) > 0.9
    for stamp in (10.0, 9.9, 10.1 + LONGEST_GAP, float("nan")):
        seen_before()
        np.testing.assert_array_equal(next_result(texture(1), stamp), after)
    seen_before()
    np.testing.assert_array_equal(next_result(texture(1)[:, :-8], 10.1, after[..., :-8]), after[..., :-8])


def test_results_are_nobody_elses_memory():
    memory, grey, planes = TemporalFilter(), texture(1), np.full((4, *SIZE), 100, np.uint8)
    planes.setflags(write=False)
    first = memory(grey, planes)
    first_copy = first.copy()
    memory(grey, np.full((4, *SIZE), 200, np.uint8))
    np.testing.assert_array_equal(first, first_copy)


def test_each_camera_of_an_engine_has_a_memory_of_its_own():
    engine = InferenceEngine.load(device="cpu", precision="float32", input_height=64)
    streets = [SyntheticStreet(seed=seed, width=128, height=64) for seed in (1, 2)]
    apart, together = ([TemporalFilter() for _ in streets] for _ in range(2))
    kept = 0.0
    for step in range(3):
        images = [street.frame(step).image for street in streets]
        expected = [engine(image, memory) for image, memory in zip(images, apart, strict=True)]
        for scene, one, image in zip(engine(images, together), expected, images, strict=True):
            np.testing.assert_array_equal(scene.background, one.background)
            assert np.abs(scene.confidence.astype(int) - one.confidence).max() <= 1
            kept += np.abs(one.confidence.astype(int) - engine(image).confidence).mean() if step else 0.0
    assert kept > 0
    with pytest.raises(OptionError, match="1 memories were given; each image needs that of its camera"):
        engine(images, together[:1])
