"""Writes a network, MPI included, as an ONNX file or as a PyTorch program, and proves that the file computes the same.

Both hold one graph: `image`, (N, 3, h, w) uint8 RGB, in; float32 logits out: `foreground`, (N, 1, h, w), `background`,
(N, 3, h, w), and, of networks that tell kinds of objects, `kinds`, likewise. Normalisation and padding are inside.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sfi_ros.errors import OptionError, SfiError, UnavailableError
from sfi_ros.export.traceable import TraceableNetwork
from sfi_ros.files import replacing, require_writable
from sfi_ros.inference.fused_network import folded, rounded
from sfi_ros.inference.onnx_file import parse_onnx
from sfi_ros.inference.onnx_network import EXPORT_KEY, METADATA_KEY, ExportRecord, OnnxNetwork, read_exported
from sfi_ros.network import checkpoint
from sfi_ros.network.checkpoint import Checkpoint
from sfi_ros.network.metadata import to_json
from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import normalize
from sfi_ros.network.scene_network import SceneNetwork
from sfi_ros.network.views import VIEWS, least_side
from sfi_ros.options import MAX_EXPORT_SIDE, STORED
from sfi_ros.synthetic import SyntheticStreet

MAX_BATCH: Final = 1024
"""Images at once; torch 2.6 cannot do without a limit."""

TOLERANCE: Final = 1e-3
"""Largest difference of a logit between a file and the network that it was made of."""

OPSET: Final = 18
"""Of ONNX's operators: enough for this network, and old enough for ONNX Runtime 1.18 and TensorRT 10."""

Runner = Callable[[Tensor], SceneLogits]
Size = tuple[int, int]


class ExportError(SfiError, RuntimeError):
    """The network cannot be exported, or the file would not compute what the network computes; none is left behind."""


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: where.
        difference: largest difference of any logit from PyTorch's, over frames of the synthetic street and noise; None
            where nothing that could run the file is installed.
    """

    path: Path
    difference: float | None


def export_onnx(
    weights: str | Path,
    path: str | Path,
    *,
    input_height: int | None = None,
    size: Size | None = None,
    max_side: int = MAX_EXPORT_SIDE,
    stored: str = "float32",
) -> Exported:
    """Write a checkpoint's network as ONNX. Takes about half a minute for the default network.

    The file is checked with ONNX Runtime where that is installed.

    Args:
        weights: checkpoint (.safetensors).
        path: file to write, ending in .onnx; an existing one is replaced at once or not at all.
        input_height: height in pixels of the images that the file is meant for; None for `size`'s, or else the one that
            the network was trained for. Engines run it at this height by default.
        size: (height, width) of the images that the file takes; None for any. One size runs a little faster.
        max_side: where `size` is None, the longest side of the images that the file takes; more costs a little time.
        stored: numbers that the weights of convolutions are stored in, one of `STORED`. "float16" halves the file. It
            computes the same, in float32, where the checkpoint holds float16, too; other weights are rounded, and the
            file is compared with a network of these.

    Raises:
        MissingFileError, CheckpointError: see `checkpoint.load`.
        OptionError: a size or path that cannot be, or a network that needs a mask as input.
        UnavailableError: onnx or onnxscript is not installed, or torch is older than 2.7.
        ExportError: the network cannot be traced, or the file computes something else.
    """
    path = _checked_path(path, ".onnx")
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise UnavailableError(
                f"{package} is not installed; install it with `pip install onnx onnxscript onnxruntime`"
            )
    if not onnx_is_possible():
        raise UnavailableError(
            f"torch {torch.__version__} cannot translate this network to ONNX: export it with torch 2.7 or newer (what "
            "runs the file needs no torch), or as a torch.export program"
        )
    plan = _Plan.make(weights, input_height, size, max_side, OPSET, stored)
    program = plan.trace()
    with _tracing(plan.record):
        translated: Any = torch.onnx.export(
            program,
            input_names=["image"],
            output_names=["foreground", "background", *(["kinds"] if plan.loaded.metadata.tells_kinds else [])],
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    content = _labelled(translated.model_proto, plan)

    def write(partial: Path) -> Runner | None:
        partial.write_bytes(content)
        read_exported(partial)
        if importlib.util.find_spec("onnxruntime") is None:
            return None
        return by_onnxruntime(OnnxNetwork(partial, device="cpu"))

    return _write_checked(path, plan, write)


def by_onnxruntime(network: OnnxNetwork) -> Runner:
    """Return an exported network as one of PyTorch's."""

    def run(images: Tensor) -> SceneLogits:
        foreground, background, *kinds = map(torch.from_numpy, network(images.numpy()))
        return SceneLogits(background, foreground, *kinds)

    return run


def onnx_is_possible() -> bool:
    """Whether this PyTorch can: that of 2.6 has no way to decompose operators on sizes that are not known."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 7)


def export_program(
    weights: str | Path,
    path: str | Path,
    *,
    input_height: int | None = None,
    size: Size | None = None,
    max_side: int = MAX_EXPORT_SIDE,
    stored: str = "float32",
) -> Exported:
    """Write a checkpoint's network as a `torch.export` program, for `torch.export.load` and AOTInductor.

    Args:
        weights, input_height, size, max_side, stored: see `export_onnx`; the size of a program stays.
        path: file to write, ending in .pt2. The program takes `image` and returns a dictionary.

    Raises:
        MissingFileError, CheckpointError, OptionError, ExportError: see `export_onnx`.
    """
    path = _checked_path(path, ".pt2")
    plan = _Plan.make(weights, input_height, size, max_side, None, stored)
    program = plan.trace()

    def write(partial: Path) -> Runner:
        torch.export.save(program, partial, extra_files=plan.texts())
        network: Any = torch.export.load(partial).module()

        def run(images: Tensor) -> SceneLogits:
            return SceneLogits(**network(images))

        return run

    return _write_checked(path, plan, write)


# --- what is exported ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """A network, and the images that its file is for."""

    loaded: Checkpoint
    record: ExportRecord

    @classmethod
    def make(
        cls,
        weights: str | Path,
        input_height: int | None,
        size: Size | None,
        max_side: int,
        opset: int | None,
        stored: str = "float32",
    ) -> _Plan:
        if stored not in STORED:
            raise OptionError(f"stored must be one of {', '.join(STORED)}; got {stored!r}")
        loaded = checkpoint.load(weights)
        network = loaded.network
        if network.options.mask_source == "given":
            raise OptionError(f"{weights} was trained with mask_source='given': its network needs a mask as input")
        # Below, maps of one pixel appear, which the tracer treats as special.
        smallest = least_side(VIEWS[network.options.views], network.decoder.multiple + 1)
        limits = (smallest, max(size) if size else max_side)
        if limits[1] < limits[0] or (size and min(size) < smallest):
            raise OptionError(
                f"{network.name} is exported for sides of {smallest} pixels and more; got {size or max_side}"
            )
        if size and input_height not in (None, size[0]):
            raise OptionError(f"input_height {input_height} is not the height of size {size[0]}x{size[1]}")
        height = size[0] if size else input_height or loaded.metadata.input_height
        if not limits[0] <= height <= limits[1]:
            raise OptionError(f"input_height must be within {limits[0]}..{limits[1]} (max_side); got {height}")
        record = ExportRecord(
            weights=Path(weights).name,
            weights_sha256=hashlib.sha256(Path(weights).read_bytes()).hexdigest(),
            torch=torch.__version__,
            opset=opset,
            size=size,
            min_side=limits[0],
            max_side=limits[1],
            graph_sha256="",
            stored=stored,
        )
        if stored == "float16":
            loaded = replace(loaded, network=with_half_weights(loaded.network))
        return cls(replace(loaded, metadata=replace(loaded.metadata, input_height=height)), record)

    def texts(self, graph_sha256: str = "") -> dict[str, str]:
        """Return what the file says about itself."""
        record = replace(self.record, graph_sha256=graph_sha256)
        return {METADATA_KEY: to_json(self.loaded.metadata), EXPORT_KEY: to_json(record)}

    def trace(self) -> ExportedProgram:
        """One graph for all batch sizes, and for all sizes where none is fixed."""
        side = {"min": self.record.min_side, "max": self.record.max_side}
        dims: dict[int, Any] = {0: Dim("batch", min=1, max=MAX_BATCH)}
        if self.record.size is None:
            dims |= {2: Dim("height", **side), 3: Dim("width", **side)}
        # No two sides of the example are equal, nor its batch 1: the tracer would take that for a rule.
        height, width = self.record.size or (self.record.min_side + 14, self.record.min_side + 55)
        example = torch.zeros(3, 3, height, width, dtype=torch.uint8)
        network = TraceableNetwork(self.loaded.network, self.record.max_side).eval()
        with torch.no_grad(), _tracing(self.record):
            return torch.export.export(network, (example,), dynamic_shapes={"image": dims}, strict=False)

    def examples(self) -> Iterator[Tensor]:
        """Batches of images to compare the file and the network on: streets, and noise."""
        height = self.loaded.metadata.input_height
        smallest, largest = self.record.min_side, self.record.max_side
        anything = (height, min(2 * height, largest)), (max(height // 2 + 3, smallest), max(height * 3 // 5, smallest))
        for number, (rows, columns) in enumerate([self.record.size] if self.record.size else anything):
            street = SyntheticStreet(seed=number, width=columns, height=rows)
            frames = [street.frame(0).image, street.frame(20).image]
            noise = np.random.default_rng(number).integers(0, 256, frames[0].shape, dtype=np.uint8)
            yield _as_batch(*frames)
            yield _as_batch(noise)


def with_half_weights(network: SceneNetwork) -> SceneNetwork:
    """Return a copy whose convolutions' weights are numbers of float16, held as float32."""
    network = copy.deepcopy(network)
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = rounded(part.weight, torch.float16).float()
    return network


def _as_batch(*images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


# --- the file ------------------------------------------------------------------------------------------------------


def _checked_path(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    if path.suffix != suffix:
        raise OptionError(f"the name of this file ends in {suffix}; got {path}")
    require_writable(path)
    return path


def _write_checked(path: Path, plan: _Plan, write: Callable[[Path], Runner | None]) -> Exported:
    """Write beside `path`, compare what `write` opens there with the network, and only then take the file's place."""
    with replacing(path) as partial:
        run = write(partial)
        difference = None
        if run is not None:
            difference = _largest(_difference(run, plan.loaded, images) for images in plan.examples())
        if difference is not None and not difference <= TOLERANCE:  # NaN is refused, too
            found = f"its logits differ from PyTorch's by up to {difference:.2g}, more than {TOLERANCE}"
            raise ExportError(f"{path} was not written: {found}")
    return Exported(path, difference)


@torch.inference_mode()
def _difference(run: Runner, loaded: Checkpoint, images: Tensor) -> float:
    """Largest difference of any logit.

    The network inpaints where the file did: else a pixel whose logit rounds to another side of zero would count as an
    error of the background.
    """
    got = run(images)
    mask = (got.foreground > 0).float()
    expected = vars(loaded.network(normalize(images), given_foreground=mask))
    pairs = [(logits, expected[name]) for name, logits in vars(got).items() if logits is not None]
    return _largest(float((one - other).abs().max()) for one, other in pairs)


def _largest(numbers: Iterable[float]) -> float:
    """Return the largest, or NaN where there is one: Python's max would lose it."""
    return float(np.max(list(numbers)))


def _labelled(proto: Any, plan: _Plan) -> bytes:
    """Return the file's bytes, with our metadata, and the axes of what goes in and out named.

    What the exporter notes at every node (paths of source files among it) is left out.
    """
    import onnx  # optional

    graph = proto.graph
    if plan.record.stored == "float16":
        _halve_weights(graph, plan.loaded.network)
    dims = graph.input[0].type.tensor_type.shape.dim
    names = {dims[axis].dim_param: name for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    for value in (*graph.input, *graph.output, *graph.value_info):
        del value.metadata_props[:]
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda match: names.get(match[0], match[0]), dim.dim_param)
    for node in graph.node:
        del node.metadata_props[:]
    del graph.metadata_props[:]
    onnx.helper.set_model_props(proto, {})
    graph_sha256 = parse_onnx(proto.SerializeToString()).graph_sha256
    onnx.helper.set_model_props(proto, plan.texts(graph_sha256))
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def _halve_weights(graph: Any, network: SceneNetwork) -> None:
    """Store weights of convolutions as float16 and a factor for each output channel, that of the folded batch norm.

    What the file computes stays: whatever loads it multiplies them in float32, once.

    Args:
        graph: of an ONNX model.
        network: what it was made of, from `with_half_weights`.
    """
    import onnx  # optional

    originals = dict(network.named_modules())
    stored = {
        conv.weight.contiguous().numpy().tobytes(): originals[name].weight.detach().numpy()
        for name, conv in folded(network, torch.device("cpu"), torch.float32).named_modules()
        if isinstance(conv, nn.Conv2d)
    }
    nodes = []
    for tensor in list(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        original = stored.get(values.tobytes())
        if original is None:
            continue
        name, factors = tensor.name, _factors(original, values)
        tensor.CopyFrom(onnx.numpy_helper.from_array(original.astype(np.float16), f"{name}.float16"))
        graph.initializer.append(onnx.numpy_helper.from_array(factors, f"{name}.factors"))
        nodes.append(onnx.helper.make_node("Cast", [tensor.name], [f"{name}.float32"], to=onnx.TensorProto.FLOAT))
        nodes.append(onnx.helper.make_node("Mul", [f"{name}.float32", f"{name}.factors"], [name]))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


def _factors(original: np.ndarray, folded_weights: np.ndarray) -> np.ndarray:
    """Return what each output channel of (out, in, h, w) weights was multiplied with, (out, 1, 1, 1) float32."""
    before, behind = (weights.reshape(len(weights), -1).astype(np.float64) for weights in (original, folded_weights))
    largest = np.abs(before).argmax(1)[:, None]
    before, behind = (np.take_along_axis(weights, largest, 1)[:, 0] for weights in (before, behind))
    factors = np.divide(behind, before, out=np.ones_like(before), where=before != 0)
    return factors.astype(np.float32).reshape(-1, 1, 1, 1)


@contextmanager
def _tracing(record: ExportRecord) -> Iterator[None]:
    """Nothing of the tracer's warnings, which are about its own insides; its errors as ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            summary = str(cause).split("\n\n")[0]
            remedy = "a newer one may" if record.size else "a newer one may, or this one for one size (--size)"
            raise ExportError(f"torch {torch.__version__} cannot export this network, {remedy}: {summary}") from error
