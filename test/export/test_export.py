"""Exported files compute what PyTorch computes, say where they come from, and are refused when they are not ours."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import shared, weights_telling_kinds
from torch import Tensor, nn

from sfi_ros.cli import main
from sfi_ros.export import exporter, traceable
from sfi_ros.export.exporter import (
    ExportError,
    by_onnxruntime,
    export_onnx,
    export_program,
    onnx_is_possible,
    with_half_weights,
)
from sfi_ros.files import WriteError
from sfi_ros.inference import DEFAULT_WEIGHTS, InferenceEngine
from sfi_ros.inference.onnx_file import parse_onnx
from sfi_ros.inference.onnx_network import EXPORT_KEY, OnnxNetwork, engine_cache, read_exported
from sfi_ros.network import checkpoint, mpi, zoo
from sfi_ros.network.checkpoint import CheckpointError
from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import normalize
from sfi_ros.synthetic import SyntheticStreet

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytestmark = pytest.mark.skipif(not DEFAULT_WEIGHTS.is_file(), reason="no default weights ship yet")

TINY = (96, 160)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The default weights, telling kinds of objects, as ONNX, for any size, stored as the checkpoint stores them."""
    if not onnx_is_possible():
        pytest.skip("ONNX needs torch 2.7 or newer")
    path = tmp_path_factory.mktemp("onnx") / "default.onnx"
    return export_onnx(weights_telling_kinds(), path, max_side=1024, stored="float16").path


def street(height: int, width: int, *, seed: int = 2, count: int = 1) -> Tensor:
    drive = SyntheticStreet(seed=seed, width=width, height=height)
    frames = np.stack([drive.frame(5 + 55 * number).image for number in range(count)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


@torch.inference_mode()
def pytorch(images: Tensor, bias: float = 0.0) -> SceneLogits:
    network = checkpoint.load(weights_telling_kinds()).network
    network.foreground.classifier.bias += bias
    return network(normalize(images))


def assert_same(got: SceneLogits, expected: SceneLogits) -> None:
    for name, logits in vars(got).items():
        if logits is not None:
            torch.testing.assert_close(logits, getattr(expected, name), rtol=0, atol=1e-3)
    assert (got.background.argmax(1) == expected.background.argmax(1)).float().mean() >= 0.999
    assert ((got.foreground > 0) == (expected.foreground > 0)).float().mean() >= 0.999


# --- the network that is traced ------------------------------------------------------------------------------------


def masks(h: int, w: int, generator: torch.Generator) -> Tensor:
    """None, all, all but a corner, a block at the border, noise: (5, 1, h, w)."""
    planes = torch.zeros(5, 1, h, w)
    planes[1:3] = 1
    planes[2, :, -1, -1] = 0
    planes[3, :, : (h + 1) // 2, : (w + 2) // 3] = 1
    planes[4] = (torch.rand(1, h, w, generator=generator) < 0.4).float()
    return planes


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (5, 16), (16, 5), (17, 33), (32, 64)])
@pytest.mark.parametrize("boundary", mpi.BOUNDARIES)
def test_inpainting_equals_algorithm_1(boundary, size):
    generator = torch.Generator().manual_seed(sum(size))
    foreground = masks(*size, generator)
    features = torch.randn(5, 3, *size, generator=generator)
    features[4, 0, :, ::5] = float("inf")
    for values in (features, features.abs(), -features.abs()):
        mask = foreground > 0.5
        dilated = mpi.dilate(mask)
        region = dilated if boundary == "dilated" else mask
        expected = torch.where(region, mpi.algorithm_1(values, dilated), values)
        for longest in (max(size), max(size) + 1, 200):
            got = mpi.max_pool_inpaint(values, foreground, boundary=boundary, longest=longest)
            assert torch.equal(got, expected)


@pytest.mark.parametrize("cells", [1, 2, 3, 6])
def test_cell_averages(cells):
    for size in ((6, 6), (7, 11), (2, 3), (16, 5)):
        features = torch.randn(2, 3, *size)
        torch.testing.assert_close(traceable.CellAverages(cells)(features), nn.AdaptiveAvgPool2d(cells)(features))


@pytest.mark.parametrize(
    "options",
    [
        {"mpi_position": "image"},
        {"mpi_position": "block4", "boundary": "raw"},
        {"mpi_position": "logits"},
        {"boundary": "raw"},
        {"fill": "zero"},
        {"views": 4},
    ],
)
@torch.inference_mode()
def test_traceable_network_equals_the_network(options):
    trained = checkpoint.load(weights_telling_kinds()).network
    network = zoo.build(trained.name, foreground_classes=3, **options).eval()
    network.load_state_dict(trained.state_dict())
    images = street(65, 90, count=2)
    got = traceable.TraceableNetwork(network, 128)(images)
    assert_same(SceneLogits(**got), network(normalize(images)))
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["fast-resnet18", "paper-resnet18-shared", "two-stage-resnet18"])
@torch.inference_mode()
def test_untrained_traceable_network_equals_the_network(name):
    torch.manual_seed(0)
    network = zoo.build(name, foreground_classes=3).eval()
    network.foreground.register_forward_hook(lambda *call: (call[-1][0] - call[-1][0].median(), call[-1][1]))
    images = street(65, 90)
    got = traceable.TraceableNetwork(network, 128)(images)
    mask = (got["foreground"] > 0).float()
    assert 0.2 < mask.mean() < 0.8
    expected = network(normalize(images), given_foreground=mask)  # logits next to zero round to either side
    assert set(got) == {"foreground", "background", "kinds"}
    for name, logits in got.items():
        planes = getattr(expected, name)
        torch.testing.assert_close(logits, planes, rtol=0, atol=5e-3 * float(planes.abs().max()))


# --- ONNX ----------------------------------------------------------------------------------------------------------


def with_bias(path: Path, bias: float, to: Path) -> Path:
    """A copy of an exported file whose foreground logits are higher by `bias`."""
    proto = onnx.load(path)
    (tensor,) = [t for t in proto.graph.initializer if t.name.endswith("foreground.classifier.bias")]
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + np.float32(bias), tensor.name))
    digest = parse_onnx(proto.SerializeToString()).graph_sha256
    for text in proto.metadata_props:
        if text.key == EXPORT_KEY:
            text.value = json.dumps(json.loads(text.value) | {"graph_sha256": digest})
    onnx.save(proto, to)
    return to


@pytest.mark.parametrize(
    ("bias", "least", "most"), [(-6, 0.002, 0.06), (0, 0.05, 0.2), (10, 0.2, 0.9), (100, 1, 1), (-100, 0, 0)]
)
def test_equals_pytorch_whatever_the_foreground_covers(exported, tmp_path, bias, least, most):
    network = by_onnxruntime(OnnxNetwork(with_bias(exported, bias, tmp_path / "biased.onnx"), device="cpu"))
    for images in (street(256, 512), street(131, 204, count=2)):
        expected = pytorch(images, bias)
        mask = expected.foreground > 0
        assert least <= mask.float().mean() <= most
        if bias == 10:
            assert mask[..., -1, :].any() and mask[..., 0].any() and mask[..., -1].any()
        got = network(images.contiguous(memory_format=torch.channels_last))
        assert_same(got, expected)
        assert got.background.dtype == torch.float32


@pytest.mark.parametrize("size", [(33, 33), (64, 1024), (200, 64), (129, 161), (256, 455)])
def test_any_size(exported, size):
    images = street(*size, count=3)
    assert_same(by_onnxruntime(OnnxNetwork(exported, device="cpu", threads=1))(images), pytorch(images))


def test_real_frames(exported):
    network = by_onnxruntime(OnnxNetwork(exported, device="cpu"))
    paths = sorted(shared("data/clips/aachen_03").glob("*.jpg"))[::40][:3]
    assert paths
    for path in paths:
        image = cv2.cvtColor(cv2.resize(cv2.imread(str(path)), (512, 256)), cv2.COLOR_BGR2RGB)
        images = torch.from_numpy(image).permute(2, 0, 1)[None]
        expected = pytorch(images)
        assert (expected.foreground > 0).any()
        assert_same(network(images), expected)


def test_engine_runs_it(exported):
    image = SyntheticStreet(seed=5, width=640, height=360).frame(9).image
    engine = InferenceEngine.load(exported, device="cpu")
    assert (engine.backend, engine.precision, engine.input_height) == ("onnxruntime", "float32", 256)
    reference = InferenceEngine.load(weights_telling_kinds(), device="cpu", precision="float32")
    got, expected = engine(image), reference(image)
    assert (got.foreground == expected.foreground).mean() > 0.999
    assert (got.background == expected.background).mean() > 0.999
    assert (got.kinds == expected.kinds).mean() > 0.999
    assert (got.foreground_classes == expected.foreground_classes).mean() > 0.999


def test_info_reads_it(exported, capsys):
    assert main(["info", str(exported), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["name"] == "fast-mobilenetv2"
    assert facts["exported"]["weights"] == DEFAULT_WEIGHTS.name


def test_file_says_what_it_is(exported):
    metadata, record = read_exported(exported)
    assert metadata == checkpoint.read_metadata(weights_telling_kinds())
    assert record.weights == DEFAULT_WEIGHTS.name
    assert record.weights_sha256 == hashlib.sha256(weights_telling_kinds().read_bytes()).hexdigest()
    assert record.torch == torch.__version__
    assert (record.size, record.min_side, record.max_side, record.stored) == (None, 33, 1024, "float16")
    assert exported.stat().st_size < 1.1 * weights_telling_kinds().stat().st_size
    proto = onnx.load(exported)
    assert record.opset == next(entry.version for entry in proto.opset_import if entry.domain == "")
    values = [*proto.graph.input, *proto.graph.output]
    assert [value.name for value in values] == ["image", "foreground", "background", "kinds"]
    dims = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in values]
    assert dims == [["batch", channels, "height", "width"] for channels in (3, 1, 3, 3)]
    assert str(Path.cwd()).encode() not in exported.read_bytes()
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_weights_that_are_not_float16_yet_are_rounded():
    network = checkpoint.load(DEFAULT_WEIGHTS).network
    before = network.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in with_half_weights(network).state_dict().items())
    conv = next(part for part in network.modules() if isinstance(part, nn.Conv2d))
    conv.weight.data *= 1.0001
    rounded = next(part for part in with_half_weights(network).modules() if isinstance(part, nn.Conv2d))
    assert torch.equal(rounded.weight, rounded.weight.half().float())
    torch.testing.assert_close(rounded.weight, conv.weight, rtol=1e-2, atol=1e-4)


def test_images_that_the_file_is_not_for(exported):
    network = OnnxNetwork(exported, device="cpu")
    with pytest.raises(ValueError, match=r"sides of 33 to 1024 pixels; got 64x1025: .* --max-side"):
        network(np.zeros((1, 3, 64, 1025), np.uint8))
    with pytest.raises(ValueError, match="got 32x64"):
        network(np.zeros((1, 3, 32, 64), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        network(np.zeros((1, 3, 64, 64), np.float32))


# --- one size, from the command line -------------------------------------------------------------------------------


@pytest.mark.skipif(not onnx_is_possible(), reason="ONNX needs torch 2.7 or newer")
def test_command_writes_a_file_for_one_size(tmp_path, capsys):
    path = tmp_path / "new" / "small.onnx"
    assert main(["export", str(DEFAULT_WEIGHTS), "-o", str(path), "--size", "96x160"]) == 0
    assert "largest difference of a logit" in capsys.readouterr().err
    network = OnnxNetwork(path, device="cpu")
    assert (network.record.size, network.metadata.input_height) == (TINY, 96)
    for count in (1, 2):
        images = street(*TINY, count=count)
        assert_same(by_onnxruntime(network)(images), pytorch(images))
    with pytest.raises(ValueError, match=r"is for images of 96x160 \(height x width\); got 96x128: .*--size 96x128"):
        network(street(96, 128).numpy())


def test_torch_export_program(tmp_path):
    path = tmp_path / "small.pt2"
    written = export_program(DEFAULT_WEIGHTS, path, size=TINY)
    assert written.path == path
    assert 0 < written.difference < 1e-3
    said = {"sfi_ros": "", "sfi_ros_export": ""}
    network = torch.export.load(path, extra_files=said).module()
    for count in (1, 2):
        images = street(*TINY, count=count)
        got = network(images)
        assert_same(SceneLogits(**got), pytorch(images))
    assert json.loads(said["sfi_ros"])["input_height"] == 96
    assert json.loads(said["sfi_ros_export"])["size"] == list(TINY)


def test_several_views_of_any_size(tmp_path):
    one = checkpoint.load(DEFAULT_WEIGHTS)
    network = zoo.build(one.metadata.name, **{**one.metadata.options, "views": 4}).eval()
    network.load_state_dict(one.network.state_dict())
    checkpoint.save(tmp_path / "four.safetensors", network, input_height=96)
    with pytest.raises(ValueError, match="sides of 49 pixels and more"):
        export_program(tmp_path / "four.safetensors", tmp_path / "four.pt2", max_side=48)
    export_program(tmp_path / "four.safetensors", tmp_path / "four.pt2", max_side=256)
    program = torch.export.load(tmp_path / "four.pt2").module()
    for size in ((49, 61), TINY):
        images = street(*size)
        with torch.inference_mode():
            assert_same(SceneLogits(**program(images)), network(normalize(images)))


@pytest.mark.skipif(not onnx_is_possible(), reason="ONNX needs torch 2.7 or newer")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (20, 160)}, "sides of 33 pixels and more"),
        ({"max_side": 30}, "sides of 33 pixels and more"),
        ({"size": TINY, "input_height": 128}, "input_height 128 is not the height of size 96x160"),
        ({"stored": "int4"}, "stored must be one of float32, float16; got 'int4'"),
        ({"max_side": 200}, r"within 33..200 \(max_side\); got 256"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(DEFAULT_WEIGHTS, tmp_path / "x.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_paths_and_networks_that_cannot_be(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"ends in \.pt2; got .*x\.onnx"):
        export_program(DEFAULT_WEIGHTS, tmp_path / "x.onnx")
    (tmp_path / "folder.onnx").mkdir()
    for place, reason in (("folder.onnx", "it is a folder"), ("file/x.onnx", "File exists|Not a directory")):
        (tmp_path / "file").touch()
        with pytest.raises(WriteError, match=rf"cannot be written: ({reason})"):  # before the minute that it takes
            export_onnx(DEFAULT_WEIGHTS, tmp_path / place)
    checkpoint.save(tmp_path / "given.safetensors", zoo.build("fast-mobilenetv2", mask_source="given"))
    with pytest.raises(ValueError, match="needs a mask as input"):
        export_program(tmp_path / "given.safetensors", tmp_path / "x.pt2")
    for size in ("256", "256x", "axb"):
        with pytest.raises(SystemExit):
            main(["export", str(DEFAULT_WEIGHTS), "-o", "x.onnx", "--size", size])
        assert f"must be HEIGHTxWIDTH, such as 256x512, not {size}" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [2e-3, float("nan")])
def test_a_file_that_computes_something_else_is_not_kept(tmp_path, wrong):
    path = tmp_path / "kept.onnx"
    path.write_text("what was there")
    plan = exporter._Plan.make(weights_telling_kinds(), None, TINY, 0, None)

    def write(partial: Path):
        partial.write_text("wrong")
        return lambda images: replace(right := pytorch(images), background=right.background + wrong)

    with pytest.raises(ExportError, match="differ from PyTorch's by up to"):
        exporter._write_checked(path, plan, write)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


# --- what is not ours, or not there --------------------------------------------------------------------------------


def test_foreign_files(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.onnx do not exist"):
        OnnxNetwork(tmp_path / "none.onnx", device="cpu")
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    with pytest.raises(CheckpointError, match=r"text\.onnx is not a readable ONNX file"):
        OnnxNetwork(text, device="cpu")
    proto = onnx.load(exported)
    for metadata, message in (
        ({}, "was not written by `sfi export`"),
        ({"sfi_ros": "{", "sfi_ros_export": "{}"}, "metadata of .* is damaged"),
        ({"sfi_ros": json.dumps({"format": 99, "package_version": "7"}), "sfi_ros_export": "{}"}, "by sfi_ros 7"),
    ):
        onnx.helper.set_model_props(proto, metadata)
        onnx.save(proto, tmp_path / "foreign.onnx")
        with pytest.raises(CheckpointError, match=message):
            OnnxNetwork(tmp_path / "foreign.onnx", device="cpu")


def test_tensorrt_needs_a_gpu_and_says_so(exported):
    with pytest.raises(ValueError, match="provider 'tensorrt' does not run on device 'cpu'"):
        InferenceEngine.load(exported, device="cpu", backend="tensorrt")


def test_providers(exported):
    for provider, device in (("tensorrt", "cpu"), ("cuda", "cpu"), ("cpu", "cuda:0")):
        with pytest.raises(ValueError, match=f"provider '{provider}' does not run on device '{device}'"):
            OnnxNetwork(exported, device=device, provider=provider)
    with pytest.raises(ValueError, match="unknown provider 'npu'; use cpu, cuda, tensorrt"):
        OnnxNetwork(exported, device="cuda:0", provider="npu")


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this onnxruntime has CUDA")
@pytest.mark.parametrize("provider", [None, "tensorrt"])
def test_a_provider_that_is_missing_is_named_with_its_remedy(exported, provider):
    with pytest.raises(
        RuntimeError, match=r"has no (CUDA|Tensorrt)ExecutionProvider but .*: replace it by onnxruntime-gpu"
    ):
        OnnxNetwork(exported, device="cuda", provider=provider)


def test_a_torch_that_is_too_old_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.6.0+cu124")
    with pytest.raises(RuntimeError, match=r"torch 2\.6\.0\+cu124 cannot .* with torch 2\.7 or newer"):
        export_onnx(DEFAULT_WEIGHTS, tmp_path / "x.onnx")


def test_missing_packages_are_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(RuntimeError, match="onnxruntime is not installed"):
            OnnxNetwork(tmp_path / "x.onnx", device="cpu")
    for package in ("onnx", "onnxscript"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(RuntimeError, match=f"{package} is not installed; install it with `pip"):
                export_onnx(DEFAULT_WEIGHTS, tmp_path / "x.onnx")


def test_compiled_engines_are_kept_by_gpu_and_file(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    other = with_bias(exported, 1, tmp_path / "other.onnx")
    folders = []
    for gpu, path in itertools.product(("NVIDIA One", "NVIDIA Two"), (exported, other)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, gpu=gpu: gpu)
        folders.append(engine_cache(ort, read_exported(path)[1].graph_sha256, "cuda:0"))
    assert len(set(folders)) == 4
    assert all(folder.is_dir() and folder.parent == tmp_path / "sfi_ros" / "tensorrt" for folder in folders)
    assert folders[0].name.startswith(f"NVIDIA-One-ort{ort.__version__}-trt")
