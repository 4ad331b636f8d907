"""The table of outputs: what each image shows of a scene, and that a scene can be rebuilt from those that hold it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sfi_ros.classes import BACKGROUND_COLORS
from sfi_ros.errors import OptionError
from sfi_ros.inference import Scene, Timing
from sfi_ros.network.metadata import Metadata
from sfi_ros.outputs import (
    BACKGROUND_EVIDENCE,
    EVIDENCE_CLASSES,
    FOREGROUND_CLASSES_OUTPUT,
    OBJECT_CLASSES,
    OUTPUTS,
    OVERLAY,
    SCENE_OUTPUTS,
    SceneView,
    output_named,
    outputs_of,
    require_given,
    scene_of,
)

SIZE = (6, 8)


def a_view() -> SceneView:
    generator = np.random.default_rng(0)
    foreground = generator.integers(0, 2, SIZE, dtype=np.uint8)
    background = generator.integers(0, 3, SIZE, dtype=np.uint8)
    confidence = generator.integers(85, 256, SIZE, dtype=np.uint8)
    probability = np.where(foreground > 0, 200, 30).astype(np.uint8)
    image = generator.integers(0, 256, (2 * SIZE[0], 2 * SIZE[1], 3), dtype=np.uint8)
    kinds = generator.integers(0, 3, (SIZE[0] // 2, SIZE[1] // 2), dtype=np.uint8)  # at the network's size
    return SceneView(Scene(foreground, background, confidence, probability, Timing(0, 0, 0), kinds), image)


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.name)
def test_every_output_is_what_its_encoding_says(output):
    view = a_view()
    pixels = output.make(view)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (SIZE if output.encoding == "mono8" else (*SIZE, 3))
    assert output.channels == (1 if output.encoding == "mono8" else 3)
    if output.classes:
        assert pixels.max() < len(output.classes) and output.label_info
    assert output_named(output.name) is output


def test_names_and_label_topics_are_unique():
    assert len({output.name for output in OUTPUTS}) == len(OUTPUTS)
    topics = [output.label_info for output in OUTPUTS if output.label_info]
    assert len(set(topics)) == len(topics)
    with pytest.raises(ValueError, match="unknown output 'depth'; outputs are foreground_mask, background"):
        output_named("depth")


def test_a_scene_is_rebuilt_from_the_outputs_that_hold_it():
    view = a_view()
    rebuilt = scene_of({output.name: output.make(view) for output in SCENE_OUTPUTS}, view.scene.timing)
    for name in ("foreground", "background", "confidence", "foreground_probability"):
        assert np.array_equal(getattr(rebuilt, name), getattr(view.scene, name))


def test_evidence_tells_seen_from_inferred():
    view = a_view()
    evidence = BACKGROUND_EVIDENCE.make(view)
    for row, column in np.ndindex(SIZE):
        meaning = EVIDENCE_CLASSES[evidence[row, column]]
        name = ("road", "sidewalk", "other")[view.scene.background[row, column]]
        assert meaning == f"{name}, {'inferred' if view.scene.foreground[row, column] else 'seen'}"


def test_foreground_classes_tell_what_each_object_is():
    view = a_view()
    classes = FOREGROUND_CLASSES_OUTPUT.make(view)
    for row, column in np.ndindex(SIZE):
        kind = ("person", "two-wheeler", "vehicle")[view.scene.kinds[row // 2, column // 2]]
        assert OBJECT_CLASSES[classes[row, column]] == (kind if view.scene.foreground[row, column] else "no object")


def test_weights_that_tell_no_kinds_give_no_foreground_classes():
    telling, other = (Metadata("x", {"foreground_classes": count}) for count in (3, 1))
    assert outputs_of(telling) == OUTPUTS
    assert set(OUTPUTS) - set(outputs_of(other)) == {FOREGROUND_CLASSES_OUTPUT}
    require_given(OUTPUTS, telling, "some.onnx")
    require_given(outputs_of(other), other, "some.onnx")
    with pytest.raises(OptionError, match=r"output foreground_classes: some.onnx tells no kinds of objects: leave it"):
        require_given(OUTPUTS, other, "some.onnx")
    with pytest.raises(ValueError, match="tell no kinds"):
        FOREGROUND_CLASSES_OUTPUT.make(replace(a_view(), scene=replace(a_view().scene, kinds=None)))


def test_the_overlay_has_the_size_of_the_scene_and_its_share_of_colour():
    view = a_view()
    bare = SceneView(view.scene, view.image, overlay_alpha=1.0)
    pixels = OVERLAY.make(bare)
    inner = view.scene.foreground == 0
    drawn = np.isin(pixels.reshape(-1, 3), np.array([*BACKGROUND_COLORS, (255, 80, 0)], np.uint8)).all(1)
    assert drawn.reshape(SIZE)[inner].all()
