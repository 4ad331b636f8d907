"""Whether int8 would pay for exported networks: makes such files, times them beside float32 in one run. An experiment.

    .venv/bin/python benchmarks/int8.py --images ../shared/data/cityscapes_512_aachen/leftImg8bit/train/aachen
    .venv/bin/python benchmarks/accuracy.py out/int8/float-14.onnx --dataset cityscapes --root path/to/cityscapes
    ONEDNN_MAX_CPU_ISA=AVX2 .venv/bin/python benchmarks/int8.py --runtime openvino      # pip install openvino

Static quantisation by ONNX Runtime: per channel, as QDQ nodes, ranges from a few frames. Inpainting and the last layers
stay float, and so do the first `--float-layers` convolutions, which are narrow and need it most. The engine does not
make such files; it runs them as any other exported file, and so does `benchmarks/accuracy.py`.

ONNX Runtime takes what the processor has. OpenVINO computes by oneDNN, which can be told to use AVX2 only.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from benchmarks import stand_ins, tables
from sfi_ros.export.exporter import export_onnx
from sfi_ros.inference import DEFAULT_WEIGHTS
from sfi_ros.inference.onnx_file import parse_onnx
from sfi_ros.inference.onnx_network import EXPORT_KEY, OnnxNetwork

KINDS = ("Conv", "Clip", "Relu", "Add")
"""Operators that are quantised: those of the encoder and the decoder, none of inpainting's."""

CALIBRATION, FRAMES = 16, 4  # frames that set the ranges, and others that are timed and compared

Network = Callable[[np.ndarray], Sequence[np.ndarray]]
"""(1, 3, h, w) uint8 RGB -> logits of foreground and background."""

COLUMNS = (
    tables.Column("file", "file", identity=True),
    tables.Column("mb", "MB", ".1f"),
    tables.Column("cpu_ms", "CPU ms", ".1f"),
    tables.Column("ratio", "over float32", ".2f"),
    tables.Column("equal_classes", "equal classes", ".2%"),
    tables.Column("mask_iou", "mask IoU", ".4f"),
)
NOTES = (
    "CPU ms: of one thread, median, all files in turn. Equal classes, mask IoU: against float32, on frames that set no "
    "ranges.",
)


def quantized(source: Path, path: Path, frames: Sequence[np.ndarray], float_layers: int) -> None:
    """Write an exported file's network in int8.

    Args:
        source: what `sfi export` wrote, float32.
        path: to write.
        frames: (h, w, 3) uint8 RGB of the network's size, to find the ranges of features with.
        float_layers: convolutions at the beginning that stay float.
    """
    model = onnx.load(source)
    nodes = list(model.graph.node)
    convolutions = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    outputs = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 4}
    last = [nodes[place].name for place in convolutions if outputs.get(nodes[place].input[1], 0) in (1, 3)]
    first = [node.name for node in nodes[: convolutions[float_layers]]] if float_layers else []
    logging.disable(logging.WARNING)  # it recommends steps that a folded network does not need
    quantize_static(
        source,
        path,
        _Frames(frames),
        per_channel=True,
        op_types_to_quantize=list(KINDS),
        nodes_to_exclude=list(dict.fromkeys((*first, *last))),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    logging.disable(logging.NOTSET)
    _label(path, {text.key: text.value for text in model.metadata_props})


def _label(path: Path, texts: dict[str, str]) -> None:
    """Give a file another one's metadata, its checksum set."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {})
    record = json.loads(texts[EXPORT_KEY]) | {"graph_sha256": parse_onnx(model.SerializeToString()).graph_sha256}
    onnx.helper.set_model_props(model, texts | {EXPORT_KEY: json.dumps(record)})
    onnx.save(model, path)


class _Frames(CalibrationDataReader):
    def __init__(self, frames: Sequence[np.ndarray]):
        self._frames: Iterator[np.ndarray] = iter(frames)

    def get_next(self) -> dict[str, Any] | None:
        """Return the inputs of the next run; None behind the last one."""
        frame = next(self._frames, None)
        return None if frame is None else {"image": _planes(frame)}


def _planes(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame.transpose(2, 0, 1)[None])


def by_onnxruntime(path: Path) -> Network:
    """Return an exported network, run by ONNX Runtime in one thread."""
    return OnnxNetwork(path, device="cpu", threads=1)


def by_openvino(path: Path) -> Network:
    """Return the same, run by OpenVINO."""
    try:
        import openvino
    except ImportError as error:
        raise SystemExit("--runtime openvino needs OpenVINO: pip install openvino") from error

    exact = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}  # not bfloat16
    compiled = openvino.Core().compile_model(path, "CPU", exact)

    def run(planes: np.ndarray) -> list[np.ndarray]:
        answer = compiled(planes)
        return [answer[name] for name in ("foreground", "background")]

    return run


RUNTIMES: dict[str, Callable[[Path], Network]] = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}


def compare(
    paths: Sequence[Path], load: Callable[[Path], Network], frames: Sequence[np.ndarray], rounds: int
) -> list[tables.Row]:
    """Time files in turn and compare what they say; the first is what others are compared with."""
    networks = [load(path) for path in paths]
    times: list[list[float]] = [[] for _ in paths]
    answers: list[list[tuple[np.ndarray, np.ndarray]]] = []
    for number in range(rounds + 1):
        for frame in frames:
            answers.append([])
            for network, taken in zip(networks, times, strict=True):
                began = time.process_time()
                foreground, background, *_ = network(_planes(frame))
                if number:  # the first round warms up
                    taken.append(1e3 * (time.process_time() - began))
                answers[-1].append((foreground > 0, background.argmax(1)))
    rows = []
    for place, (path, taken) in enumerate(zip(paths, times, strict=True)):
        masks = [(answer[place][0], answer[0][0]) for answer in answers]
        both, either = (sum(int(f(one, other).sum()) for one, other in masks) for f in (np.logical_and, np.logical_or))
        rows.append(
            {
                "file": path.name,
                "mb": path.stat().st_size / 1e6,
                "cpu_ms": statistics.median(taken),
                "ratio": statistics.median(times[0]) / statistics.median(taken),
                "equal_classes": float(np.mean([(answer[place][1] == answer[0][1]).mean() for answer in answers])),
                "mask_iou": both / either if either else 1.0,
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the files, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of photos for the ranges; default: the synthetic street")
    parser.add_argument("--exported", type=Path, help="float32 file for --size; default: made of the shipped weights")
    parser.add_argument(
        "--size", type=lambda text: tables.sizes(text)[0], default=(512, 256), help="WxH of the network"
    )
    parser.add_argument("--float-layers", type=lambda text: [int(part) for part in text.split(",")], default=[0, 14])
    parser.add_argument("--runtime", choices=RUNTIMES, default="onnxruntime", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("out/int8"), help="folder for the files")
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    width, height = options.size
    source = (
        options.exported or export_onnx(DEFAULT_WEIGHTS, options.output / "float32.onnx", size=(height, width)).path
    )
    count = CALIBRATION + FRAMES
    if options.images:
        frames = list(stand_ins.folder_frames(options.images, width, height, count))
    else:
        frames = list(stand_ins.street_frames(width, height, count))
    paths = [source]
    for layers in options.float_layers:
        paths.append(options.output / f"float-{layers}.onnx")
        quantized(source, paths[-1], frames[FRAMES:], layers)
    table = tables.Table(
        "int8", f"int8 by {options.runtime} at {width}x{height}, float in the first layers", COLUMNS, notes=NOTES
    )
    table.rows += compare(paths, RUNTIMES[options.runtime], frames[:FRAMES], options.rounds)
    tables.report(options, table)


if __name__ == "__main__":
    main()
