"""Whether every path that only a GPU takes is right, before anything is timed. Goes on where one check fails.

    python benchmarks/gpu_checks.py --device cuda --json out/checks.json
    .venv/bin/python benchmarks/gpu_checks.py --device cpu        # a rehearsal: the same checks at small sizes

Each row compares with the plain path on the CPU in float32: max-pooling as inpainting with Algorithm 1 as the literal
loop, the engine with the CPU's, a training step and augmentation with those of the CPU. Ends with status 1 if a check
failed; what went wrong stands below the table.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from benchmarks import stand_ins, tables
from benchmarks.mpi import literal, street_mask
from sfi_ros.inference import InferenceEngine, Scene
from sfi_ros.network import mpi, zoo
from sfi_ros.network.preprocessing import normalize
from sfi_ros.network.shipped_weights import find_weights
from training.configuration import LossOptions
from training.learning.losses import losses, supervision

COLUMNS = (
    tables.Column("check", "check", identity=True),
    tables.Column("result", "result"),
    tables.Column("measured", "measured"),
    tables.Column("seconds", "s", ".1f"),
)

Check = tuple[str, Callable[[], str]]
"""What it is called, and a function that returns what it measured, or raises an AssertionError."""

PRECISIONS = {"cuda": ("float32", "float16", "bfloat16"), "cpu": ("float32",)}
NETWORKS = {"cuda": ("fast-mobilenetv2", "fast-resnet18", "paper-resnet18-shared"), "cpu": ("fast-mobilenetv2",)}
PICTURES = {"cuda": ((1920, 1080), (640, 480), (1242, 375)), "cpu": ((160, 90), (96, 72))}
HEIGHTS = {"cuda": 256, "cpu": 64}
FEATURES = {"cuda": ((512, 64, 128), (192, 32, 64), (130, 33, 57)), "cpu": ((24, 16, 32), (13, 9, 17))}

LEAST_EQUAL = {"float32": 0.999, "float16": 0.995, "bfloat16": 0.98}
"""Share of pixels whose class and mask equal the CPU's in float32. Weights without training lie closer to ties than
trained ones."""


def checks(device: torch.device, folder: Path) -> Iterator[Check]:
    """All checks, the most telling first."""
    kind = device.type
    dtypes = (torch.float32, torch.float16, torch.bfloat16) if kind == "cuda" else (torch.float32,)
    for dtype in dtypes:
        yield f"MPI equals Algorithm 1, {_short(dtype)}", lambda dtype=dtype: mpi_is_exact(device, dtype)
    for network, precision in itertools.product(NETWORKS[kind], PRECISIONS[kind]):
        yield (
            f"engine, {network}, {precision}",
            lambda network=network, precision=precision: engine_agrees(device, folder, network, precision),
        )
    precision = PRECISIONS[kind][-1]
    yield f"engine, quality (four views), {precision}", lambda: engine_agrees(device, folder, "quality", precision)
    yield "one training step, float32", lambda: step_agrees(device)
    if kind == "cuda":
        for dtype in (torch.bfloat16, torch.float16):
            yield (
                f"200 training steps stay finite, {_short(dtype)}",
                lambda dtype=dtype: steps_stay_finite(device, dtype),
            )
        yield (
            "engine, fast-mobilenetv2, compiled",
            lambda: engine_agrees(device, folder, "fast-mobilenetv2", "float16", backend="compile"),
        )


def mpi_is_exact(device: torch.device, dtype: torch.dtype) -> str:
    """Every value of `max_pool_inpaint` equals the loop's, for masks from none to all, both boundaries and layouts."""
    generator = torch.Generator().manual_seed(0)
    compared = 0
    for size, layout, boundary in itertools.product(
        FEATURES[device.type], (torch.contiguous_format, torch.channels_last), ("dilated", "raw")
    ):
        channels, height, width = size
        features = torch.randn(2, channels, height, width, generator=generator)  # signed: zeros win over some of it
        features = features.to(device, dtype).contiguous(memory_format=layout)
        noise = (torch.rand(1, 1, height, width, generator=generator) < 0.3).float()
        masks = [street_mask(height, width, share) for share in (0.0, 0.05, 0.5, 1.0)] + [noise]
        for one, other in itertools.pairwise(masks):
            mask = torch.cat([one, other]).to(device)  # two images of a batch must not know of each other
            dilated = mpi.dilate(mpi.sample_mask(mask, features))
            patch = mpi.algorithm_1(features, dilated)
            region = dilated if boundary == "dilated" else mpi.sample_mask(mask, features)
            expected = torch.where(region, patch, features)
            result = mpi.max_pool_inpaint(features, mask, boundary=boundary)
            different = int((result != expected).sum())
            assert different == 0, f"{different} of {result.numel()} values differ at {size}, {layout}, {boundary}"
            compared += result.numel()
    assert torch.equal(literal(features, mask), mpi.max_pool_inpaint(features, mask))
    return f"{compared / 1e6:.0f} M values, all equal"


def engine_agrees(device: torch.device, folder: Path, network: str, precision: str, backend: str = "pytorch") -> str:
    """Classes and masks as on the CPU in float32, for several sizes, alone and in batches, twice over."""
    weights = stand_ins.weights_for(network, folder) if network in zoo.NAMES else find_weights(network)
    height = HEIGHTS[device.type]
    here = InferenceEngine.load(weights, device=str(device), precision=precision, backend=backend, input_height=height)
    plain = InferenceEngine.load(weights, device="cpu", precision="float32", input_height=height)
    least = 1.0
    for width, rows in PICTURES[device.type]:
        images = list(stand_ins.street_frames(width, rows, 3))
        expected = plain(images)
        for batch in (images[:1], images[1:2], images, images[::-1]):  # replays of a graph, and another batch size
            wanted = [expected[index] for index in _places(batch, images)]
            for got, want in zip(here(batch), wanted, strict=True):
                least = min(least, _equal(got, want))
    wanted_share = LEAST_EQUAL[precision]
    assert least >= wanted_share, f"only {least:.3%} of the pixels are equal; at least {wanted_share:.1%} should be"
    return f"at least {least:.2%} of pixels equal"


def step_agrees(device: torch.device) -> str:
    """Loss and gradients of one training step as on the CPU."""
    there, here = _gradients(torch.device("cpu")), _gradients(device)
    loss = abs(here[0] - there[0]) / abs(there[0])
    norm = float(torch.linalg.vector_norm(there[1]))
    gradient = float(torch.linalg.vector_norm(here[1] - there[1])) / norm
    measured = f"loss {loss:.1e}, gradient {gradient:.1e} beside the CPU's"
    assert loss < 1e-4 and gradient < 1e-2, measured
    return measured


def steps_stay_finite(device: torch.device, dtype: torch.dtype, steps: int = 200) -> str:
    """Mixed precision at the default learning rate: every loss is finite and the mean falls."""
    torch.manual_seed(0)
    network = zoo.build("fast-mobilenetv2").to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), 4e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    image, foreground, background = _batch(device, images=8)
    truth = supervision(foreground, background, None, LossOptions())
    taken = []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype):
            logits = network(image)
        loss = losses(logits.background, logits.foreground, truth, LossOptions()).total
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        taken.append(loss.detach())
    values = torch.stack(taken).tolist()
    measured = f"loss {values[0]:.2f} to {values[-1]:.2f}"
    assert np.isfinite(values).all() and values[-1] < values[0], measured
    assert all(bool(parameter.isfinite().all()) for parameter in network.parameters()), "weights are not finite"
    return measured


def _gradients(device: torch.device) -> tuple[float, Tensor]:
    """Loss, and all gradients as one vector on the CPU, of one step in float32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        torch.manual_seed(0)
        network = zoo.build("fast-mobilenetv2")
        for module in network.modules():
            if isinstance(module, (torch.nn.Dropout, torch.nn.Dropout2d)):
                module.p = 0.0  # each device draws other numbers
        network = network.to(device, memory_format=torch.channels_last).train()
        image, foreground, background = _batch(device, images=2)
        logits = network(image, given_foreground=foreground[:, None])
        truth = supervision(foreground, background, None, LossOptions())
        total = losses(logits.background, logits.foreground, truth, LossOptions()).total
        total.backward()
        gradients = [p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None]
        return total.item(), torch.cat(gradients)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _batch(device: torch.device, images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised images and labels of the synthetic street, as (N, 3, h, w), (N, h, w) and (N, h, w)."""
    from sfi_ros.synthetic import SyntheticStreet

    street = SyntheticStreet(seed=5, width=2 * HEIGHTS[device.type], height=HEIGHTS[device.type])
    frames = [street.frame(20 * number) for number in range(images)]
    image = torch.from_numpy(np.stack([frame.image for frame in frames])).permute(0, 3, 1, 2)
    foreground = torch.from_numpy(np.stack([frame.foreground for frame in frames]))
    background = torch.from_numpy(np.stack([frame.background for frame in frames]))
    image = normalize(image).contiguous(memory_format=torch.channels_last)
    return image.to(device), foreground.to(device), background.to(device)


def _places(batch: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> list[int]:
    return [next(index for index, image in enumerate(images) if image is wanted) for wanted in batch]


def _equal(got: Scene, want: Scene) -> float:
    """Return the smallest share of equal pixels, of mask, classes and, where they are told, kinds of objects."""
    names = ("foreground", "background", *(() if want.kinds is None else ("foreground_classes",)))
    return min(float((getattr(got, name) == getattr(want, name)).mean()) for name in names)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks and print them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for a rehearsal (default: cuda)")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no check after so long")
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    table = tables.Table(f"checks {device.type}", f"Checks on {name}", COLUMNS)
    began, problems = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        for check, run in checks(device, Path(folder)):
            started = time.monotonic()
            if started - began > options.seconds:
                tables.add(options, table, {"check": check, "result": "not run", "measured": "out of time"})
                continue
            try:
                result, measured = "passed", run()
            except Exception as error:
                result, measured = (
                    "FAILED",
                    f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                )
                problems.append(f"{check}\n{''.join(traceback.format_exception(error, limit=-6))}")
            seconds = time.monotonic() - started
            tables.add(options, table, {"check": check, "result": result, "measured": measured, "seconds": seconds})
    tables.report(options, table)
    print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
