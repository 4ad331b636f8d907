"""What exported networks run with instead of PyTorch: its resizing and its decisions, by NumPy, and devices by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfi_ros.inference import InferenceEngine, threads
from sfi_ros.inference.decision import probabilities_of
from sfi_ros.inference.resizing import resize_by_numpy
from sfi_ros.inference.torch_host import resize_by_torch
from sfi_ros.network.outputs import SceneLogits, to_probabilities
from sfi_ros.synthetic import SyntheticStreet


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ((1080, 1920), (256, 455)),
        ((375, 1242), (256, 848)),
        ((100, 80), (256, 205)),  # enlarged
        ((64, 640), (64, 200)),  # one side only
        ((640, 64), (33, 64)),
        ((33, 47), (1, 1)),
        ((64, 96), (64, 96)),
    ],
)
def test_resizing_is_that_of_pytorch(source, size):
    noise = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    street = SyntheticStreet(seed=1, width=source[1], height=source[0]).frame(4).image
    for image in (street, noise, noise[::-1]):
        got, expected = resize_by_numpy(image, size), resize_by_torch(image, size)
        assert (got.shape, got.dtype) == ((*size, 3), np.uint8)
        assert np.abs(got.astype(int) - expected).max() <= 1
        assert (got == expected).mean() > 0.999
    assert (resize_by_numpy(np.full((*source, 3), 77, np.uint8), size) == 77).all()


@pytest.mark.parametrize("tells_kinds", [False, True])
def test_probabilities_are_those_of_pytorch(tells_kinds):
    random = np.random.default_rng(0)
    foreground = random.normal(0, 200, (2, 1, 9, 11)).astype(np.float32)
    threes = [random.normal(0, 20, (2, 3, 9, 11)).astype(np.float32) for _ in range(2 if tells_kinds else 1)]
    background, *kinds = map(torch.from_numpy, threes)
    expected = to_probabilities(SceneLogits(background, torch.from_numpy(foreground), *kinds))
    np.testing.assert_allclose(probabilities_of(foreground, *threes), expected.numpy(), rtol=1e-5, atol=1e-7)


def test_only_devices_and_precisions_that_there_are(tmp_path):
    for options, message in (
        ({"device": "npu"}, "unknown device 'npu'; use auto, cpu, cuda or cuda:N"),
        ({"precision": "bfloat16"}, "an exported network computes in float32; got precision 'bfloat16': use auto"),
    ):
        with pytest.raises(ValueError, match=message):
            InferenceEngine.load(tmp_path / "x.onnx", **options)


def test_threads_are_those_that_the_user_or_the_cores_say(monkeypatch):
    cores = threads.available_cores()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert 1 <= threads.usual_threads() <= cores
    for text, expected in (("1", 1), ("100000", cores), ("1,2", 1), ("nonsense", threads.usual_threads())):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert threads.usual_threads() == expected
