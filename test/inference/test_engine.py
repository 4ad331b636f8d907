"""The engine against a plain float32 path, its sizes, its refusals."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import needs_bfloat16

from sfi_ros.inference import (
    DEFAULT_WEIGHTS,
    DefaultWeightsMissing,
    InferenceEngine,
    Scene,
    cpu_pipeline,
    device,
)
from sfi_ros.network import checkpoint, shipped_weights, zoo
from sfi_ros.network.checkpoint import CheckpointError
from sfi_ros.network.image_format import network_size
from sfi_ros.network.preprocessing import normalize
from sfi_ros.synthetic import SyntheticStreet


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint whose outputs are not constant, so that comparisons can fail."""
    torch.manual_seed(1)
    network = zoo.build("fast-mobilenetv2", foreground_classes=3)
    street = SyntheticStreet(seed=1, width=160, height=96)
    images = torch.stack([torch.from_numpy(street.frame(number).image) for number in range(4)])
    images = normalize(images.permute(0, 3, 1, 2))
    with torch.no_grad():
        for _ in range(20):  # batch norm gets the statistics of streets
            network(images)
        out = network.eval()(images)
        network.foreground.classifier.bias -= out.foreground.median()
        out = network(images)  # the mask has changed, so has the background
        network.decoder.classifier.bias -= out.background.mean((0, 2, 3))
        network.foreground.kinds.classifier.bias -= out.kinds.mean((0, 2, 3))
        for part in (network.decoder.classifier, network.foreground.kinds.classifier):
            for parameter in part.parameters():
                parameter *= 100  # as decided as a trained network is
    path = tmp_path_factory.mktemp("weights") / "some.safetensors"
    checkpoint.save(path, network, input_height=96)
    return path


@pytest.fixture(scope="module")
def image():
    return SyntheticStreet(seed=2, width=320, height=200).frame(3).image


def reference(path, image: np.ndarray, input_height: int, size: tuple[int, int] | None):
    """The same computation, written as plainly as possible, in float32."""
    network = checkpoint.load(path).network
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    width = round(image.shape[1] * input_height / image.shape[0])
    x = F.interpolate(x, size=(input_height, width), mode="bilinear", antialias=True)
    x = x.round()  # on a CPU the engine resizes bytes; an untrained network would make much of half a level
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        out = network(x)
    mask, classes, kinds = out.foreground.sigmoid(), out.background.softmax(1), out.kinds.argmax(1)
    if size:
        mask, classes = (F.interpolate(t, size=size, mode="bilinear", align_corners=False) for t in (mask, classes))
    confidence, background = classes[0].max(0)
    return (mask[0, 0] > 0.5).numpy(), background.numpy(), confidence.numpy(), kinds[0].numpy()


@pytest.mark.parametrize("output_size", ["input", "network"])
@pytest.mark.parametrize("input_height", [64, 96, 200])
def test_equals_a_plain_float32_path(trained, image, output_size, input_height):
    engine = InferenceEngine.load(
        trained, device="cpu", precision="float32", input_height=input_height, output_size=output_size
    )
    scene = engine(image)
    size = image.shape[:2] if output_size == "input" else None
    mask, background, confidence, kinds = reference(trained, image, input_height, size)
    assert len(np.unique(mask)) == 2
    assert len(np.unique(background)) >= 2
    # The engine resizes bytes, not floats, to the input's size: pixels right at a decision may fall the other way.
    assert (scene.foreground == mask).mean() > 0.98
    assert (scene.background == background).mean() > 0.98
    assert np.abs(scene.confidence / 255 - confidence).mean() < 0.02
    assert len(np.unique(kinds)) == 3
    assert (scene.kinds == kinds).mean() > 0.98


def test_scene(trained, image):
    scene = InferenceEngine.load(trained, device="cpu")(image)
    assert isinstance(scene, Scene)
    for array in (scene.foreground, scene.background, scene.confidence, scene.foreground_classes):
        assert array.dtype == np.uint8
        assert array.shape == image.shape[:2]
    assert set(np.unique(scene.foreground)) <= {0, 1}
    assert set(np.unique(scene.background)) <= {0, 1, 2}
    assert set(np.unique(scene.foreground_classes)) == {0, 1, 2, 3}
    assert np.array_equal(scene.foreground_classes > 0, scene.foreground > 0)
    assert scene.confidence.min() >= 255 // 3  # the best of three classes
    assert scene.foreground_share == pytest.approx(scene.foreground.mean())
    assert min(scene.timing.preprocess, scene.timing.network, scene.timing.postprocess) > 0


@needs_bfloat16
def test_bfloat16_agrees_with_float32(image):
    full, half = (InferenceEngine.load(device="cpu", precision=p)(image) for p in ("float32", "bfloat16"))
    assert (full.background == half.background).mean() > 0.98
    assert (full.foreground == half.foreground).mean() > 0.98


def test_threshold_moves_the_mask_and_nothing_else(trained, image):
    engine = InferenceEngine.load(trained, device="cpu", foreground_threshold=0.48)
    wide = engine(image)
    engine.foreground_threshold = 0.52
    narrow = engine(image)
    assert (wide.foreground >= narrow.foreground).all()
    assert wide.foreground.sum() > narrow.foreground.sum() > 0
    assert np.array_equal(wide.background, narrow.background)


def test_list_keeps_order_and_sizes(trained, image):
    engine = InferenceEngine.load(trained, device="cpu", precision="float32")
    others = [image, np.ascontiguousarray(image[:, ::-1]), image[:100, :150], image]
    together, alone = engine(others), [engine(one) for one in others]
    for batched, single in zip(together, alone, strict=True):
        assert batched.background.shape == single.background.shape
        assert (batched.background == single.background).mean() > 0.999
        assert (batched.foreground == single.foreground).mean() > 0.999
    assert engine([]) == []


def test_many_images_are_inferred_in_several_passes(trained, image, monkeypatch):
    engine = InferenceEngine.load(trained, device="cpu", precision="float32")
    images = [np.ascontiguousarray(np.roll(image, 11 * number, axis=1)) for number in range(5)]
    expected, passes = engine(images), []
    network = engine._pipeline._network
    monkeypatch.setattr(engine._pipeline, "_network", lambda part: passes.append(len(part)) or network(part))
    h, w = network_size(*image.shape[:2], engine.input_height)
    for pixels, lengths in ((2 * h * w, [2, 2, 1]), (1, [1] * 5)):
        monkeypatch.setattr(cpu_pipeline, "PIXELS_PER_PASS", pixels)
        passes.clear()
        for one, other in zip(engine(images), expected, strict=True):
            assert (one.background == other.background).mean() > 0.999
            assert (one.foreground == other.foreground).mean() > 0.999
        assert passes == lengths


def test_views_that_are_not_contiguous(trained, image):
    engine = InferenceEngine.load(trained, device="cpu", precision="float32")
    flipped = image[:, ::-1]
    assert np.array_equal(engine(flipped).background, engine(np.ascontiguousarray(flipped)).background)
    read_only = image.copy()
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine(read_only)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((10, 10, 3), np.float32), r"\(10, 10, 3\) and dtype float32; accepted is an H x W x 3 uint8 RGB"),
        (np.zeros((10, 10), np.uint8), r"shape \(10, 10\)"),
        (np.zeros((10, 10, 4), np.uint8), r"shape \(10, 10, 4\)"),
        (np.zeros((0, 10, 3), np.uint8), r"shape \(0, 10, 3\)"),
        (np.zeros((1, 20000, 3), np.uint8), "at most 16384 pixels"),
        (np.zeros((10, 1000, 3), np.uint8), "differ by more than a factor of 16"),
        ("street.png", "accepted"),
        ([np.zeros((10, 10, 3), np.uint8), None], "image 1 of the list is a NoneType"),
    ],
)
def test_wrong_images_are_named(trained, wrong, message):
    engine = InferenceEngine.load(trained, device="cpu")
    with pytest.raises(ValueError, match=message):
        engine(wrong)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "tpu"}, ValueError, "unknown device 'tpu'"),
        ({"device": "meta"}, ValueError, "unsupported device 'meta'"),
        ({"device": "cuda:99"}, RuntimeError, "'cuda:99' was asked for, but .*; name 'cpu' or 'auto'"),
        (
            {"device": "cpu", "precision": "float16"},
            ValueError,
            "'float16' is not possible on .* needs a CUDA device",
        ),
        ({"precision": "int4"}, ValueError, "unknown precision 'int4'"),
        ({"input_height": 8}, ValueError, "input_height must be within"),
        ({"output_size": "huge"}, ValueError, "output_size must be"),
        ({"foreground_threshold": 1.0}, ValueError, "foreground_threshold must be between 0 and 1"),
    ],
)
def test_wrong_options_are_named(trained, options, error, message):
    with pytest.raises(error, match=message):
        InferenceEngine.load(trained, **options)


def test_named_weights_are_never_replaced(tmp_path):
    with pytest.raises(FileNotFoundError):
        InferenceEngine.load(tmp_path / "absent.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError):
        InferenceEngine.load(tmp_path / "broken.safetensors")


def test_network_without_a_mask_of_its_own_is_refused(tmp_path):
    checkpoint.save(tmp_path / "given.safetensors", zoo.build("fast-mobilenetv2", mask_source="given"))
    with pytest.raises(ValueError, match="predicts no mask of its own"):
        InferenceEngine.load(tmp_path / "given.safetensors")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_auto_says_once_that_it_runs_on_the_cpu(trained, caplog, monkeypatch):
    monkeypatch.setattr(device, "_said", set())
    with caplog.at_level(logging.WARNING):
        engines = [InferenceEngine.load(trained) for _ in range(2)]
    assert {engine.device for engine in engines} == {"cpu"}
    assert sum("running on the CPU" in record.message for record in caplog.records) == 1


def test_missing_default_weights_are_said_plainly(tmp_path, monkeypatch, image):
    monkeypatch.setattr(shipped_weights, "DEFAULT_WEIGHTS", tmp_path / "default.safetensors")
    with pytest.warns(DefaultWeightsMissing, match="UNTRAINED"):
        engine = InferenceEngine.load(device="cpu")
    assert not engine.is_trained
    assert engine(image).background.shape == image.shape[:2]


@pytest.mark.skipif(not DEFAULT_WEIGHTS.is_file(), reason="no default weights ship yet")
def test_default_weights_load():
    engine = InferenceEngine.load(device="cpu")
    assert engine.is_trained
    assert engine.metadata.training_data
    assert DEFAULT_WEIGHTS.stat().st_size <= 10e6


def test_nothing_is_imported_that_does_not_run(trained):
    """torchvision, and PyTorch's compiler with what it brings, would take longer than all else and 200 MB."""
    code = (
        "import sys, numpy; from sfi_ros.inference import InferenceEngine; "
        "InferenceEngine.load(sys.argv[1], device='cpu')(numpy.zeros((96, 160, 3), numpy.uint8)); "
        "print(*{'torchvision', 'torch._dynamo', 'torch._inductor', 'triton', 'sympy'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code, trained], capture_output=True, text=True, check=True).stdout
    assert printed.split() == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(trained, image):
    on_cpu = InferenceEngine.load(trained, device="cpu", precision="float32")(image)
    on_gpu = InferenceEngine.load(trained, device="cuda", precision="float32")(image)
    assert (on_cpu.background == on_gpu.background).mean() > 0.97
    assert (on_cpu.foreground == on_gpu.foreground).mean() > 0.97
