"""ONNX files from outside: a network of ours or one clear error, whatever stands in them; no other file is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_models import declared, model, written

from sfi_ros.errors import SfiError
from sfi_ros.inference.onnx_file import parse_onnx, read_onnx
from sfi_ros.inference.onnx_network import OnnxNetwork, read_exported
from sfi_ros.network.metadata import CheckpointError, Metadata
from sfi_ros.network.options import NetworkOptions

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.fixture
def good(tmp_path) -> Path:
    return written(declared(model()), tmp_path / "good.onnx")


def test_a_file_of_ours_runs(good):
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 24), dtype=np.uint8)
    foreground, background = OnnxNetwork(good, device="cpu")(image)
    assert np.array_equal(background, image.astype(np.float32))
    np.testing.assert_allclose(foreground, image.mean(1, keepdims=True) - 100, rtol=1e-5)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"input_height": "256"}, "input_height must be an integer within 32..4096; got 256"),
        ({"options": {"foreground_classes": 10_000_000}}, "foreground_classes must be 1"),
        ({"options": {"pretrained": "/etc/passwd"}}, "unknown network options pretrained"),
        ({"mean": [0.5, 0.5, 0.5]}, "normalised with"),
        ({"background_classes": ["road", "grass", "other"]}, "trained for the classes road, grass"),
        ('{"name": "x", "name": "y"}', "a key stands in it twice"),
        ("[" * 100_000, "is damaged"),
        ("7", "not an object"),
    ],
)
def test_metadata_is_checked_as_that_of_checkpoints(tmp_path, metadata, message):
    with pytest.raises(CheckpointError, match=message):
        read_exported(written(declared(model()), tmp_path / "x.onnx", metadata=metadata))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"max_side": 10**9}, "max_side must be an integer within 1..16384; got 1000000000"),
        ({"max_side": "64"}, "max_side must be"),
        ({"min_side": 65}, "min_side must be an integer within 1..64"),
        ({"size": [16]}, "size must be a height and a width"),
        ({"size": [16, -24]}, "a side of size must be an integer"),
        ({"size": 5}, "size must be a height and a width; got 5"),
        ({"opset": True}, "opset must be"),
        ({"weights": None}, "weights must be a text"),
        ("{}", "it lacks weights, weights_sha256"),
    ],
)
def test_what_the_file_says_of_its_images_is_checked(tmp_path, record, message):
    with pytest.raises(CheckpointError, match=message):
        read_exported(written(declared(model()), tmp_path / "x.onnx", record=record))


def test_texts_that_are_not_utf_8(good, tmp_path):
    (tmp_path / "x.onnx").write_bytes(good.read_bytes().replace(b"fast-mobilenetv2", b"fast-mobilenet\xff\xfe"))
    with pytest.raises(CheckpointError, match=r"not a readable ONNX file: .*utf-8"):
        read_exported(tmp_path / "x.onnx")


def test_a_key_that_stands_twice(good, tmp_path):
    proto = onnx.load(good)
    proto.metadata_props.add(key="sfi_ros", value="{}")
    (tmp_path / "x.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match="the key sfi_ros stands twice"):
        read_exported(tmp_path / "x.onnx")


def external(proto, location: str):
    """A model whose second constant lies in another file."""
    tensor = proto.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return proto


def in_a_branch(proto, location: str):
    """The same within the branch of an If."""
    inner = external(model(), location).graph
    node = onnx.helper.make_node("If", ["flag"], ["unused"], then_branch=inner, else_branch=inner)
    proto.graph.node.append(node)
    return proto


def in_a_constant(proto, location: str):
    node = onnx.helper.make_node("Constant", [], ["c"], value=external(model(), location).graph.initializer[1])
    proto.graph.node.append(node)
    return proto


def in_a_function(proto, location: str):
    inner = in_a_constant(model(), location).graph.node[-1]
    opset = [onnx.helper.make_opsetid("", 18)]
    proto.functions.append(onnx.helper.make_function("ours", "f", [], ["c"], [inner], opset))
    return proto


@pytest.mark.parametrize("hide", [external, in_a_branch, in_a_constant, in_a_function])
@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "/etc/hostname"])
def test_no_other_file_is_opened(tmp_path, monkeypatch, hide, location):
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime looks for the data of a model without a path
    (tmp_path / "secret.bin").write_bytes(np.float32(1).tobytes())
    with pytest.raises(CheckpointError, match="keeps weights in other files; `sfi export` writes one file"):
        OnnxNetwork(written(hide(declared(model()), location), tmp_path / "x.onnx"), device="cpu")


def test_operators_of_others_are_refused(tmp_path):
    proto = declared(model(node={"domain": "com.microsoft"}))
    with pytest.raises(CheckpointError, match=r"it has operators of com.microsoft"):
        OnnxNetwork(written(proto, tmp_path / "x.onnx"), device="cpu")


def test_damage_is_found_before_onnxruntime_sees_it(good, tmp_path):
    content = bytearray(good.read_bytes())
    position = content.index(np.float32(-100).tobytes())
    content[position] ^= 1
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match="its checksum is wrong: copy it again"):
        OnnxNetwork(tmp_path / "x.onnx", device="cpu")


@pytest.mark.parametrize("changes", [{"sides": ["batch", 4, "height", "width"]}, {"sides": ["batch", 3]}])
def test_a_graph_that_takes_something_else(tmp_path, changes):
    with pytest.raises(SfiError, match=r"inputs and outputs are|cannot run"):
        OnnxNetwork(written(declared(model(**changes)), tmp_path / "x.onnx"), device="cpu")


def test_a_graph_that_gives_something_else(tmp_path):
    proto = declared(model())
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    with pytest.raises(SfiError, match=r"inputs and outputs are|cannot run"):
        OnnxNetwork(written(proto, tmp_path / "x.onnx"), device="cpu")
    with pytest.raises(CheckpointError, match="inputs and outputs are"):
        OnnxNetwork(written(model(outputs=("foreground", "mean")), tmp_path / "x.onnx"), device="cpu")
    several = {"options": {**NetworkOptions().to_dict(), "foreground_classes": 3}}
    with pytest.raises(CheckpointError, match="inputs and outputs are"):
        OnnxNetwork(written(declared(model()), tmp_path / "x.onnx", metadata=several), device="cpu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><title>404</title>", "web page"),
        (b"\x08\x0a", "it has no graph"),
        (b"\xff" * 40, "not a readable ONNX file"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "truncated or damaged"),
        (b"\x3a\x02\x0a\x7f", "truncated or damaged"),
    ],
)
def test_files_that_are_no_models(tmp_path, content, message):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_onnx(tmp_path / "x.onnx")


def test_folders_and_devices(tmp_path):
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(CheckpointError, match=r"a folder, not a file|not a regular file"):
            read_exported(path)


def test_a_file_says_what_it_is_without_onnxruntime(good):
    program = "import sys; sys.modules['onnxruntime'] = None; from sfi_ros.cli import main; main(sys.argv[1:])"
    shown = subprocess.run(
        [sys.executable, "-c", program, "info", str(good)], capture_output=True, text=True, check=True
    ).stdout
    assert "fast-mobilenetv2" in shown


def test_mutations_end_in_one_kind_of_error(good, tmp_path):
    """Bytes flipped, cut, inserted and doubled anywhere: never a file of ours, and never another exception."""
    random = np.random.default_rng(0)
    whole = good.read_bytes()
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            position = int(random.integers(len(content)))
            kind = random.integers(4)
            if kind == 0:
                content[position] ^= 1 << int(random.integers(8))
            elif kind == 1:
                del content[position : position + int(random.integers(1, 40))]
            elif kind == 2:
                content[position:position] = random.bytes(int(random.integers(1, 8)))
            else:
                content[position:position] = content[position : position + int(random.integers(1, 60))]
        (tmp_path / "x.onnx").write_bytes(content)
        try:
            metadata, record = read_exported(tmp_path / "x.onnx")
        except SfiError as error:
            assert str(tmp_path / "x.onnx") in str(error)
            assert "\n" not in str(error)
        else:  # only a text was touched, in a place that says nothing false
            assert parse_onnx(bytes(content)).graph_sha256 == record.graph_sha256
            assert isinstance(metadata, Metadata)
