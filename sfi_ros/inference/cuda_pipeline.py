"""From images to masks on a GPU: one CUDA graph for each size, from the image's bytes to the decided classes.

A graph replays a fixed sequence of kernels on fixed memory: a frame costs one launch instead of some hundred, and
memory does not grow. It is captured at the first frame of each size, which takes far longer than others; the graphs of
the last few sizes are kept.

Results lie in pinned memory, which becomes the scenes' own: who keeps scenes keeps that. Copy them to collect many.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfi_ros.classes import FOREGROUND_THRESHOLD
from sfi_ros.inference.decision import decide_on_host, kinds_on_host
from sfi_ros.inference.scene import Scene, Timing
from sfi_ros.inference.temporal import TemporalFilter
from sfi_ros.network.image_format import network_size
from sfi_ros.network.outputs import SceneLogits, to_probabilities
from sfi_ros.network.preprocessing import resize_images

KEPT_GRAPHS: Final = 8
"""For that many combinations of batch, image size, network height and output size memory is held on the GPU."""

MOST_UNDER_WAY: Final = 2
"""Groups of images: one is computed while another is uploaded or downloaded. More would only hold memory."""

_WARM_UP_RUNS: Final = 3

_Result = Literal["input size", "network size", "undecided"]
"""What a graph computes: decisions of the image's or the network's size, or what the host needs to decide."""

_CLOSE_TIMEOUT: Final = 1.0  # seconds; a frame that hangs in the driver keeps what it uses

_CAPTURING: Final = threading.Lock()
"""A capture fails when anybody waits for the whole GPU meanwhile, as the beginning of another capture does."""

logger = logging.getLogger(__name__)


def infer_on_device(
    images: Tensor, threshold: Tensor, network: Callable[[Tensor], SceneLogits], input_height: int, at_input_size: bool
) -> Tensor:
    """All that the GPU does with a batch, on tensors of any device; never looks at a value on the host.

    Args:
        images: (N, H, W, 3) uint8 RGB.
        threshold: () float32, probability above which a pixel is foreground.
        network: maps (N, 3, h, w) of range 0..255 to logits of that size.
        input_height: height at which the network runs.
        at_input_size: whether the result has the images' size, else the network's.

    Returns:
        (N, 4 or 5, *size) uint8, see `decide_on_device`.
    """
    height, width = images.shape[1:3]
    small = network_size(height, width, input_height)
    probabilities = to_probabilities(network(resize_images(images.permute(0, 3, 1, 2), small)))
    return decide_on_device(probabilities, (height, width) if at_input_size else small, threshold)


def leave_undecided_on_device(images: Tensor, network: Callable[[Tensor], SceneLogits], input_height: int) -> Tensor:
    """Compute all that the host needs to decide on a batch by itself; see `infer_on_device`.

    Returns:
        (N, 5 or 8, h, w) uint8: the image in grey at the network's size, and the network's probabilities, 255 = 1.
    """
    height, width = images.shape[1:3]
    small = network_size(height, width, input_height)
    resized = resize_images(images.permute(0, 3, 1, 2), small)
    red, green, blue = resized.float().unbind(1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601, as OpenCV's
    planes = torch.cat([grey[:, None], 255 * to_probabilities(network(resized)).float()], 1)
    return planes.round_().to(torch.uint8)


def decide_on_device(probabilities: Tensor, size: tuple[int, int], threshold: Tensor) -> Tensor:
    """Decide on a batch, on any device, without looking at a value on the host.

    Args:
        probabilities: (N, 4 or 7, h, w) floating point of 0..1, as for `decision.decide_on_host`.
        size: (height, width) of the result.
        threshold: () floating point, probability above which a pixel is foreground.

    Returns:
        (N, 4 or 5, *size) uint8, the planes of `decision.decide_on_host` and, at that size, `decision.kinds_on_host`.
    """
    kinds = [probabilities[:, 4:].max(1).indices] if probabilities.shape[1] > 4 else []
    probabilities = probabilities[:, :4]
    if probabilities.shape[-2:] != size:
        probabilities = F.interpolate(probabilities, size=size, mode="bilinear", align_corners=False)
        kinds = [F.interpolate(planes[:, None].float(), size=size, mode="nearest-exact")[:, 0] for planes in kinds]
    objects = probabilities[:, 0]
    confidence, classes = probabilities[:, 1:].max(1)
    planes = (objects > threshold, classes, (confidence * 255).round_(), (objects * 255).round_(), *kinds)
    return torch.stack([plane.to(torch.uint8) for plane in planes], 1)


class CudaPipeline:
    """Runs one network on one GPU; threads that share it wait for each other.

    Args:
        network: on the GPU; maps (N, 3, h, w) of range 0..255 to logits of that size.
        device: the GPU.
    """

    def __init__(self, network: Callable[[Tensor], SceneLogits], device: torch.device):
        self._network, self._device = network, device
        self._graphs: OrderedDict[tuple[int | str, ...], _Graph] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(
        self,
        groups: Sequence[Sequence[np.ndarray]],
        input_height: int,
        at_input_size: bool,
        threshold: float,
        memories: Sequence[TemporalFilter] = (),
    ) -> list[Scene]:
        """Infer images group by group; see `CpuPipeline.__call__`.

        Groups of different sizes are under way at the same time: while one is computed, the next is uploaded and the
        previous one downloaded. With memories the host decides, on what has the network's size.
        """
        result: _Result = "undecided" if memories else "input size" if at_input_size else "network size"
        with self._lock, torch.inference_mode():
            results = self._infer(groups, input_height, result, threshold)
        if not memories:
            return [
                Scene(planes[0], planes[1], planes[2], planes[3], timing, planes[4] if len(planes) > 4 else None)
                for planes, timing in results
            ]
        scenes, images = [], (image for group in groups for image in group)
        for (planes, timing), memory, image in zip(results, memories, images, strict=True):
            began, size = time.perf_counter(), image.shape[:2] if at_input_size else planes.shape[1:]
            steady = memory(planes[0], planes[1:])
            decided, kinds = decide_on_host(steady, size, threshold), kinds_on_host(steady)
            scenes.append(Scene(*decided, replace(timing, postprocess=time.perf_counter() - began), kinds))
        return scenes

    def facts(self) -> dict[str, str]:
        """Return the GPU's name, and how much of its memory PyTorch holds."""
        return {
            "GPU": torch.cuda.get_device_name(self._device),
            "GPU memory (MiB)": f"{torch.cuda.memory_reserved(self._device) / 2**20:.0f}",
        }

    def close(self) -> None:
        """Let go of the network and of all memory on the GPU; it cannot be used any more."""
        if not self._lock.acquire(timeout=_CLOSE_TIMEOUT):
            return
        try:
            self._graphs.clear()
            del self._network
            gc.collect()
            torch.cuda.empty_cache()
        finally:
            self._lock.release()

    def _infer(
        self, groups: Sequence[Sequence[np.ndarray]], input_height: int, result: _Result, threshold: float
    ) -> list[tuple[np.ndarray, Timing]]:
        under_way: OrderedDict[_Graph, _Download] = OrderedDict()
        results: list[list[tuple[np.ndarray, Timing]]] = [[] for _ in groups]
        for number, images in enumerate(groups):
            if len(under_way) == MOST_UNDER_WAY:
                self._finish(under_way.popitem(last=False)[1], results)
            began = time.perf_counter()
            graph = self._graph_for(images, input_height, result)
            if graph in under_way:  # its memory is in use until then
                self._finish(under_way.pop(graph), results)
            graph.start(images, threshold)
            under_way[graph] = _Download(number, graph, began, time.perf_counter())
        for download in under_way.values():
            self._finish(download, results)
        return [image for group in results for image in group]

    def _finish(self, download: _Download, results: list[list[tuple[np.ndarray, Timing]]]) -> None:
        planes = download.graph.wait()
        waited = time.perf_counter()
        # Upload, network and download are one launch: only their sum can be told from here.
        timing = Timing(download.uploaded - download.began, waited - download.uploaded, 0.0)
        results[download.number] = [(of_image, timing) for of_image in planes]

    def _graph_for(self, images: Sequence[np.ndarray], input_height: int, result: _Result) -> _Graph:
        key = (len(images), *images[0].shape[:2], input_height, result)
        graph = self._graphs.pop(key, None)
        if graph is None:
            if len(self._graphs) == KEPT_GRAPHS:
                self._graphs.popitem(last=False)
            graph = self._captured((len(images), *images[0].shape), input_height, result)
        self._graphs[key] = graph
        return graph

    def _captured(self, shape: tuple[int, ...], input_height: int, result: _Result) -> _Graph:
        def compute(batch: Tensor, threshold: Tensor) -> Tensor:
            if result == "undecided":
                return leave_undecided_on_device(batch, self._network, input_height)
            return infer_on_device(batch, threshold, self._network, input_height, result == "input size")

        try:
            return _Graph(shape, compute, self._device)
        except torch.cuda.OutOfMemoryError as error:
            logger.warning("the GPU's memory is full (%s): forgetting the graphs of other sizes", error)
        self._graphs.clear()
        torch.cuda.empty_cache()
        return _Graph(shape, compute, self._device)


@dataclass
class _Download:
    """A group of images whose results are awaited."""

    number: int
    graph: _Graph
    began: float
    uploaded: float


class _Graph:
    """A captured computation of one size, with its stream, its memory on the GPU and its pinned memory on the host."""

    def __init__(self, shape: tuple[int, ...], compute: Callable[[Tensor, Tensor], Tensor], device: torch.device):
        self._stream = torch.cuda.Stream(device)
        self._upload = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self._images = torch.zeros(shape, dtype=torch.uint8, device=device)
        self._host_threshold = torch.full((), FOREGROUND_THRESHOLD, pin_memory=True)
        self._threshold = torch.full((), FOREGROUND_THRESHOLD, device=device)
        self._graph = torch.cuda.CUDAGraph()
        self._download = torch.empty(0, dtype=torch.uint8)
        with _CAPTURING, torch.cuda.stream(self._stream), cudnn_tries_its_algorithms():
            torch.cuda.synchronize(device)
            for _ in range(_WARM_UP_RUNS):  # compiles kernels and lets cuDNN choose its algorithms
                compute(self._images, self._threshold)
            self._stream.synchronize()
            # "thread_local": what other threads allocate meanwhile does no harm.
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                self._result = compute(self._images, self._threshold)

    def start(self, images: Sequence[np.ndarray], threshold: float) -> None:
        """Upload, compute and download on this graph's stream; returns when the images' memory is free again."""
        self._host_threshold.fill_(threshold)
        # New pinned memory for each result: it becomes the scene's, which saves a copy. PyTorch recycles it.
        self._download = torch.empty(self._result.shape, dtype=torch.uint8, pin_memory=True)
        with torch.cuda.stream(self._stream):
            for image, pinned, uploaded in zip(images, self._upload, self._images, strict=True):
                middle = len(image) // 2
                for rows in (slice(0, middle), slice(middle, None)):  # one half is sent while the other is copied
                    copy_to_pinned(image[rows], pinned[rows])
                    uploaded[rows].copy_(pinned[rows], non_blocking=True)
            self._threshold.copy_(self._host_threshold, non_blocking=True)
            self._graph.replay()
            self._download.copy_(self._result, non_blocking=True)

    def wait(self) -> np.ndarray:
        """(N, planes, *size) uint8: the results of what was started last."""
        self._stream.synchronize()
        return self._download.numpy()


def copy_to_pinned(image: np.ndarray, pinned: Tensor) -> None:
    """Copy (H, W, 3) bytes into a tensor of that shape, on all threads where PyTorch can read the array."""
    if image.flags.writeable and min(image.strides) > 0:
        pinned.copy_(torch.from_numpy(image))
    else:
        np.copyto(pinned.numpy(), image)


@contextmanager
def cudnn_tries_its_algorithms() -> Iterator[None]:
    """Let cuDNN measure which of its algorithms is fastest. (`cudnn.flags(benchmark=True)` switches cuDNN off.)"""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
