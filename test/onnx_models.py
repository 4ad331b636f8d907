"""ONNX files for tests, made in no time: what `sfi export` could have written of networks without convolutions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sfi_ros.inference.onnx_file import parse_onnx
from sfi_ros.inference.onnx_network import ExportRecord
from sfi_ros.network.metadata import Metadata, to_json
from sfi_ros.network.options import NetworkOptions

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

OUT = ("foreground", "background")


def model(**changes):
    """What `sfi export` could have written of a network without convolutions: background is the image itself."""
    helper, tensor = onnx.helper, onnx.helper.make_tensor_value_info
    sides = ["batch", 3, "height", "width"]
    axis = onnx.numpy_helper.from_array(np.array([1], np.int64), "axis")
    shift = onnx.numpy_helper.from_array(np.array([-100.0], np.float32), "shift")
    nodes = [
        helper.make_node("Cast", ["image"], ["background"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["background", "axis"], ["mean"], keepdims=1),
        helper.make_node("Add", ["mean", "shift"], ["foreground"], **changes.get("node", {})),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [tensor("image", onnx.TensorProto.UINT8, changes.get("sides", sides))],
        [
            tensor(name, onnx.TensorProto.FLOAT, ["batch", None, "height", "width"])
            for name in changes.get("outputs", OUT)
        ],
        [axis, shift],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def convolutions(count: int):
    """The same inputs and outputs with convolutions of 16 channels and ReLU between them; weights are random."""
    helper, tensor = onnx.helper, onnx.helper.make_tensor_value_info
    random = np.random.default_rng(0)
    nodes, weights, channels = [helper.make_node("Cast", ["image"], ["x0"], to=onnx.TensorProto.FLOAT)], [], 3
    for number in range(count):
        values = random.normal(0, (9 * channels) ** -0.5, (16, channels, 3, 3)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(values, f"w{number}"))
        conv = helper.make_node("Conv", [f"x{number}", f"w{number}"], [f"c{number}"], f"conv{number}", pads=[1] * 4)
        nodes += [conv, helper.make_node("Relu", [f"c{number}"], [f"x{number + 1}"], f"relu{number}")]
        channels = 16
    for name, outputs in (("foreground", 1), ("background", 3)):
        values = random.normal(0, 1, (outputs, channels, 1, 1)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(values, name + "_w"))
        nodes.append(helper.make_node("Conv", [f"x{count}", name + "_w"], [name], name + "_conv"))
    graph = helper.make_graph(
        nodes,
        "network",
        [tensor("image", onnx.TensorProto.UINT8, ["batch", 3, "height", "width"])],
        [tensor(name, onnx.TensorProto.FLOAT, ["batch", None, "height", "width"]) for name in OUT],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def written(proto, to: Path, *, metadata: dict | str | None = None, record: dict | str | None = None) -> Path:
    """Save a model as `sfi export` does, its two texts changed."""
    onnx.helper.set_model_props(proto, {})
    digest = parse_onnx(proto.SerializeToString()).graph_sha256
    sides = {"size": None, "min_side": 8, "max_side": 64}
    own_record = ExportRecord("w.safetensors", "0" * 64, "2.9", 18, **sides, graph_sha256=digest)
    own = Metadata("fast-mobilenetv2", NetworkOptions().to_dict())
    texts = [
        changes if isinstance(changes, str) else json.dumps(json.loads(to_json(value)) | (changes or {}))
        for value, changes in ((own, metadata), (own_record, record))
    ]
    onnx.helper.set_model_props(proto, dict(zip(("sfi_ros", "sfi_ros_export"), texts, strict=True)))
    to.write_bytes(proto.SerializeToString())
    return to


def declared(proto):
    for value, channels in zip(proto.graph.output, (1, 3), strict=True):
        value.type.tensor_type.shape.dim[1].dim_value = channels
    return proto
