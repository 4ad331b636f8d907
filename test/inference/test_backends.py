"""What an engine computes with: folded and fused networks, torch.compile, the GPU's part, threads."""

from __future__ import annotations

import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import needs_bfloat16, weights_telling_kinds

from sfi_ros.inference import DEFAULT_WEIGHTS, InferenceEngine
from sfi_ros.inference.backends import open_model
from sfi_ros.inference.camera_network import CameraNetwork
from sfi_ros.inference.compiled_network import KEPT_SIZES, CompiledNetwork
from sfi_ros.inference.cuda_pipeline import (
    KEPT_GRAPHS,
    copy_to_pinned,
    cudnn_tries_its_algorithms,
    infer_on_device,
    leave_undecided_on_device,
)
from sfi_ros.inference.decision import decide_on_host, kinds_on_host
from sfi_ros.inference.fused_network import (
    OneDnnConv,
    OneDnnPointwise,
    folded,
    folded_for_onednn,
    rounded,
)
from sfi_ros.inference.processor import this_processor
from sfi_ros.inference.torch_host import resize_by_torch
from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.mpi import max_pool_inpaint
from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import normalize
from sfi_ros.synthetic import SyntheticStreet

CPU = torch.device("cpu")
PRECISIONS = [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)]
needs_onednn = pytest.mark.skipif(not this_processor().has_onednn, reason="this PyTorch has no oneDNN")


@pytest.fixture(scope="module")
def street():
    """(1, 3, 96, 160) uint8."""
    return torch.from_numpy(SyntheticStreet(seed=4, width=160, height=96).frame(3).image).permute(2, 0, 1)[None]


def trained_looking(name: str):
    """A network whose batch norms do something: their statistics are those of noise, not of nothing."""
    torch.manual_seed(3)
    network = zoo.build(name)
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64))
    return network.eval()


@needs_onednn
@pytest.mark.parametrize("name", ["fast-mobilenetv2", "fast-resnet18", "paper-resnet18-shared", "two-stage-resnet18"])
@torch.inference_mode()
def test_fused_network_equals_the_plain_one(name, street):
    network = trained_looking(name)
    camera = CameraNetwork(folded_for_onednn(network, torch.float32), CPU, torch.float32)
    assert not any(isinstance(part, torch.nn.BatchNorm2d | torch.nn.Conv2d) for part in camera.modules())
    sequences = [part for part in camera.modules() if isinstance(part, torch.nn.Sequential)]
    assert not any(isinstance(part, torch.nn.Identity) for sequence in sequences for part in sequence)
    for images in (street, street[..., :64, :130], torch.cat([street, street.flip(-1)])):
        got, expected = camera(images), network(normalize(images))
        for one, other in ((got.background, expected.background), (got.foreground, expected.foreground)):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@needs_onednn
@pytest.mark.parametrize("dtype", PRECISIONS)
@torch.inference_mode()
def test_the_original_network_is_left_alone(street, dtype):
    network = trained_looking("fast-mobilenetv2")
    before = network(normalize(street))
    CameraNetwork(folded_for_onednn(network, dtype), CPU, dtype)(street)
    after = network(normalize(street))
    assert torch.equal(before.background, after.background)


@needs_onednn
@pytest.mark.parametrize(("kind", "kernel"), [(OneDnnConv, 3), (OneDnnConv, 1), (OneDnnPointwise, 1)])
@torch.inference_mode()
def test_weight_layouts_are_kept_for_the_last_few_sizes_only(kind, kernel):
    plain = torch.nn.Conv2d(8, 16, kernel, padding=kernel // 2)
    conv = kind(plain, ("relu", ()), torch.float32)
    for width in (*range(10, 30), 10):
        features = torch.randn(2, 8, 12, width)
        torch.testing.assert_close(conv(features), plain(features).relu())
        torch.testing.assert_close(conv(features.contiguous(memory_format=torch.channels_last)), plain(features).relu())
        assert len(conv._layouts) <= OneDnnConv.KEPT_LAYOUTS


def test_filters_are_rounded_such_that_their_sums_stay():
    torch.manual_seed(0)
    weight = torch.randn(16, 4, 3, 3)
    got = rounded(weight, torch.bfloat16)
    assert got.dtype == torch.bfloat16 and got.shape == weight.shape
    sums = weight.double().sum((2, 3))
    error, plain = (abs(w.double().sum((2, 3)) - sums).mean() for w in (got, weight.bfloat16()))
    assert error < plain / 4
    assert (got.float() - weight).abs().max() < 2**-6 * weight.abs().max(), "no weight is far from what it was"
    assert torch.equal(rounded(weight, torch.float32), weight)


@needs_onednn
@pytest.mark.parametrize("dtype", PRECISIONS)
@torch.inference_mode()
def test_biases_are_added_in_float32(dtype):
    plain = torch.nn.Conv2d(8, 16, 3)
    plain.weight.zero_()
    plain.bias.copy_(torch.linspace(0, 1, 16))
    conv = OneDnnConv(plain, ("none", ()), dtype)
    assert conv.bias.dtype == torch.float32
    features = torch.ones(1, 8, 6, 6, dtype=dtype)
    assert torch.equal(conv(features)[0, :, 0, 0], plain.bias.to(dtype))


@torch.inference_mode()
def test_what_the_gpu_computes_equals_the_cpu_pipeline(street):
    """The body of the CUDA graph, run on the CPU."""
    weights = weights_telling_kinds()
    engine = InferenceEngine(open_model(weights, device="cpu", precision="float32"), input_height=64)
    image = street[0].permute(1, 2, 0).contiguous()
    plain = checkpoint.load(weights).network
    network = CameraNetwork(folded(plain, CPU, torch.float32), CPU, torch.float32)
    for output_size in ("input", "network"):
        engine.output_size = output_size
        scene = engine(image.numpy())
        planes = infer_on_device(image[None], torch.tensor(0.5), network, 64, output_size == "input")[0].numpy()
        assert len(np.unique(scene.background)) == 3
        assert (planes[0] == scene.foreground).mean() > 0.98
        assert (planes[1] == scene.background).mean() > 0.98
        assert np.abs(planes[2].astype(int) - scene.confidence).mean() < 3
        assert np.abs(planes[3].astype(int) - scene.foreground_probability).mean() < 3
        assert np.array_equal(scene.foreground_probability > 127, scene.foreground > 0)
        assert len(np.unique(scene.kinds)) > 1 and planes[4].shape == scene.foreground.shape
        on_gpu = replace(scene, kinds=planes[4])
        assert (on_gpu.foreground_classes == scene.foreground_classes).mean() > 0.98
    grey, *probabilities = leave_undecided_on_device(image[None], network, 64)[0].numpy()
    resized = resize_by_torch(image.numpy(), grey.shape)
    assert np.abs(cv2.cvtColor(resized, cv2.COLOR_RGB2GRAY).astype(int) - grey).max() <= 1
    foreground, background, *_ = decide_on_host(np.stack(probabilities), grey.shape, 0.5)
    assert (foreground == scene.foreground).mean() > 0.98
    assert (background == scene.background).mean() > 0.98
    assert (kinds_on_host(np.stack(probabilities)) == scene.kinds).mean() > 0.98


class Tiny(torch.nn.Module):
    """All that a network does, small enough to be compiled in a test."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images):
        features = self.conv(images.float() / 255)
        foreground = features[:, 3:]
        return SceneLogits(max_pool_inpaint(features[:, :3].relu(), foreground > foreground.mean()), foreground)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@torch.inference_mode()
def test_compiled_network_equals_eager_and_says_when_it_compiles(street, caplog):
    torch.manual_seed(0)
    network = Tiny().eval()
    compiled = CompiledNetwork(network, CPU)
    for images in (street, street.flip(-1), street[..., :40, :56]):
        got, expected = compiled(images), network(images)
        torch.testing.assert_close(got.background, expected.background)
        torch.testing.assert_close(got.foreground, expected.foreground)
    said = [record.message for record in caplog.records if record.message.startswith("compiling the network")]
    assert len(said) == 2
    assert "160x96" in said[0] and "56x40" in said[1]


def test_compile_says_that_it_is_experimental_and_without_a_compiler_is_refused(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler"):
        open_model(DEFAULT_WEIGHTS, device="cpu", backend="compile")
    assert "backend=compile is experimental" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorflow"}, "unknown backend 'tensorflow'; use auto, pytorch"),
        ({"backend": "onnxruntime"}, "cannot run the default weights: make one with `sfi export`"),
        ({"weights": "net.onnx", "backend": "pytorch"}, "cannot run net.onnx: use backend 'auto', 'onnxruntime'"),
        ({"backend": "tensorrt"}, "cannot run the default weights: make one with `sfi export`"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        InferenceEngine.load(**{"device": "cpu", **options})


def test_threads_are_bounded_by_the_cores():
    before = torch.get_num_threads()
    try:
        InferenceEngine.load(device="cpu", threads=1)
        assert torch.get_num_threads() == 1
        InferenceEngine.load(device="cpu", threads=100_000)
        assert torch.get_num_threads() <= 4096
    finally:
        torch.set_num_threads(before)


def test_cudnn_is_asked_to_choose_and_stays_on():
    """`torch.backends.cudnn.flags(benchmark=True)`, which reads as if it did this, switches cuDNN off."""
    before = torch.backends.cudnn.benchmark
    with cudnn_tries_its_algorithms():
        assert torch.backends.cudnn.enabled
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark == before


@pytest.mark.parametrize("kind", ["plain", "rows of a larger one", "flipped", "read only"])
def test_any_array_is_copied_for_the_upload(street, kind):
    image = street[0].permute(1, 2, 0).contiguous().numpy()
    read_only = image.copy()
    read_only.flags.writeable = False
    image = {"plain": image, "rows of a larger one": image[5:50, 7:90], "flipped": image[:, ::-1]}.get(kind, read_only)
    pinned = torch.zeros(image.shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copy_to_pinned(image, pinned)
    assert np.array_equal(pinned.numpy(), image)


@torch.inference_mode()
def test_sizes_of_all_compiled_networks_are_counted_together(street, monkeypatch):
    resets = []
    monkeypatch.setattr(CompiledNetwork, "_compiled", set())
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(True))
    first, second = (CompiledNetwork(Tiny().eval(), torch.device("meta")) for _ in range(2))
    for width in range(40, 40 + KEPT_SIZES // 2):
        for network in (first, second, first):
            network(street[..., :width])
    assert not resets
    second(street)
    assert len(resets) == 1


@torch.inference_mode()
def test_a_network_is_not_taken_for_one_that_is_gone(street, monkeypatch):
    """A node that is cleaned up and configured anew makes another one, often at the same address."""
    monkeypatch.setattr(CompiledNetwork, "_compiled", set())
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    network = Tiny().eval()
    for _ in range(3):
        CompiledNetwork(network, torch.device("meta"))(street)
    assert len(CompiledNetwork._compiled) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_engine_serves_two_threads_and_many_sizes():
    pictures = [SyntheticStreet(seed=3, width=width, height=96).frame(2).image for width in range(160, 170)]
    engine = InferenceEngine.load(device="cuda", input_height=64)
    expected = [scene.background for scene in engine(pictures)]  # more sizes than graphs are kept
    with ThreadPoolExecutor(2) as pool:
        for scenes in pool.map(lambda _: engine(pictures), range(4)):
            for scene, background in zip(scenes, expected, strict=True):
                assert (scene.background == background).mean() > 0.99
    assert len(engine._pipeline._graphs) == KEPT_GRAPHS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["pytorch", "compile"])
def test_cuda_graphs_keep_up_with_sizes_batches_and_thresholds(backend):
    pictures = [SyntheticStreet(seed=n, width=width, height=96).frame(2).image for n, width in enumerate((160, 200))]
    on_cpu = InferenceEngine.load(device="cpu", precision="float32", input_height=96)
    on_gpu = InferenceEngine.load(device="cuda", precision="float32", input_height=96, backend=backend)
    together = [pictures[0], pictures[1], pictures[1], pictures[0], pictures[0]]
    for threshold in (0.5, 0.2):
        on_cpu.foreground_threshold = on_gpu.foreground_threshold = threshold
        for expected, got in zip(on_cpu(together), on_gpu(together), strict=True):
            assert (expected.background == got.background).mean() > 0.98
            assert (expected.foreground == got.foreground).mean() > 0.98
    on_gpu(pictures[1])  # a batch of its own size
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    kept = on_gpu(pictures[0])
    copy = kept.background.copy()
    for _ in range(200):
        on_gpu(pictures[1])
    assert np.array_equal(kept.background, copy)  # results are the caller's: later frames do not write over them
    assert torch.cuda.memory_allocated() == before
