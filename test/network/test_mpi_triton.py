"""The Triton kernels equal Algorithm 1 in every value: on a GPU, or in Triton's interpreter where there is none.

The interpreter is chosen when Triton is imported, so a process of its own runs this file again with it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sfi_ros.network import mpi
from sfi_ros.network.mpi import operator
from sfi_ros.network.mpi.edges import fill_by_edges

ROOT = Path(__file__).resolve().parents[2]
HAS_TRITON = importlib.util.find_spec("triton") is not None
HAS_GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if HAS_GPU and not INTERPRETED else "cpu"

needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
needs_gpu = pytest.mark.skipif(DEVICE == "cpu" or not HAS_TRITON, reason="needs a GPU and Triton")
runs_kernels = pytest.mark.skipif(
    not HAS_TRITON or not (HAS_GPU or INTERPRETED), reason="runs in test_in_the_interpreter, or on a GPU"
)


@pytest.mark.timeout(1500)  # a minute on an idle core
@pytest.mark.skipif(HAS_GPU or INTERPRETED, reason="the kernels run in this process")
@needs_triton
def test_in_the_interpreter():
    if np.lib.NumpyVersion(np.__version__) >= "2.5.0":
        pytest.importorskip("triton", minversion="3.8", reason="Triton 3.6 cannot interpret with NumPy 2.5")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment |= {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=1400", str(Path(__file__))]
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stdout + child.stderr
    assert int(re.search(r"(\d+) passed", child.stdout).group(1)) == len(SCENES) + 2, child.stdout


def filled(features: Tensor, mask: Tensor, boundary: str = "dilated") -> Tensor:
    from sfi_ros.network.mpi.triton_fill import fill_on_gpu

    return fill_on_gpu(features, mask, boundary == "dilated")


def reference(features: Tensor, mask: Tensor, boundary: str = "dilated") -> Tensor:
    dilated = mpi.dilate(mask)
    patch = mpi.algorithm_1(features, dilated)
    return torch.where(dilated if boundary == "dilated" else mask, patch, features)


def some_features(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype).to(DEVICE)
    features[:, :1].abs_()  # a value for every pixel that has a background
    if layout == "channels last":
        return features.contiguous(memory_format=torch.channels_last)
    return features.repeat(1, 2, 1, 2)[:, ::2, :, : shape[3]] if layout == "neither" else features


def some_masks(kinds: Sequence[int], h: int, w: int) -> Tensor:
    """A block at the border, full, a pixel, noise, empty, all but a corner, a ring."""
    masks = torch.zeros(7, 1, h, w, dtype=torch.bool)
    masks[0, :, h // 4 :, w // 5 : w - w // 4] = True
    masks[1] = True
    masks[2, :, h // 2, w // 3] = True
    masks[3] = torch.rand(1, h, w, generator=torch.Generator().manual_seed(h)) < 0.1
    masks[5] = True
    masks[5, :, h - 2 :, :2] = False  # of which the dilation leaves one
    masks[6, :, 1 : h - 1, 1 : w - 1] = True
    masks[6, :, h // 3 : h - h // 3, w // 3 : w - w // 3] = False
    return masks[list(kinds)].to(DEVICE)


SCENES = [  # kinds of masks, C, h, w, ...
    (range(7), 3, 9, 13, torch.float32, "contiguous", "dilated"),
    (range(7), 3, 9, 13, torch.bfloat16, "channels last", "raw"),
    (range(4), 5, 14, 6, torch.float16, "channels last", "dilated"),
    (range(4), 5, 14, 6, torch.float16, "neither", "raw"),
    ([0], 70, 12, 17, torch.float32, "channels last", "raw"),  # 70 and 130: more channels than one block has
    ([0], 130, 11, 16, torch.bfloat16, "contiguous", "dilated"),
    ([0], 16, 27, 40, torch.float32, "contiguous", "dilated"),  # more than one step of the loops along an edge ...
    ([5], 4, 38, 19, torch.float32, "contiguous", "dilated"),  # ... and of those over rows
    ([2], 1, 1, 9, torch.float32, "contiguous", "dilated"),  # Triton makes constants of sizes of one
    ([0, 1], 1, 8, 1, torch.float16, "contiguous", "raw"),
]


@pytest.mark.parametrize(("kinds", "c", "h", "w", "dtype", "layout", "boundary"), SCENES)
@runs_kernels
def test_equals_algorithm_1(kinds, c, h, w, dtype, layout, boundary):
    features, mask = some_features((len(kinds), c, h, w), dtype, layout), some_masks(kinds, h, w)
    result = filled(features, mask, boundary)
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=operator.memory_format(features))
    assert torch.equal(result, reference(features, mask, boundary))


@runs_kernels
def test_feature_that_is_not_finite_spreads_as_in_algorithm_1():
    features = some_features((1, 2, 12, 14), torch.float32, "contiguous")
    features[0, 0, 2, 5], features[0, 0, 6, 2], features[0, 1, 2, 5] = torch.nan, torch.inf, -torch.inf
    features[0, :, 6, 6] = torch.nan  # in the foreground: read by nobody
    mask = torch.zeros(1, 1, 12, 14, dtype=torch.bool, device=DEVICE)
    mask[..., 4:9, 4:10] = True
    result, expected = filled(features, mask), reference(features, mask)
    assert 1 < result.isnan().sum() < 30
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.nan_to_num(nan=-1.0), expected.nan_to_num(nan=-1.0))


@runs_kernels
def test_a_batch_without_images():
    features = some_features((0, 3, 4, 5), torch.float32, "contiguous")
    assert filled(features, some_masks([], 4, 5)).shape == (0, 3, 4, 5)


# --- what the interpreter cannot see: the real compiler, which needs no GPU ------------------------------------------

NUMBERS = {"*fp32": "f32", "*fp16": "f16", "*bf16": "bf16"}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("pointer", "ones"), [("*fp32", "channel"), ("*fp16", "pixel"), ("*bf16", "all")])
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@needs_triton
def test_compiles_with_wide_loads_and_long_offsets(pointer, ones, capability):
    """Sizes and strides of one are constants to Triton; without 64 bits, 4096x4096x128 features overflow an offset."""
    pytest.importorskip("triton", minversion="3.3")  # which first took what follows in this form
    from triton import compiler
    from triton.backends.compiler import GPUTarget

    from sfi_ros.network.mpi import triton_fill

    pointers = dict.fromkeys(("features", "in_rows", "in_columns", "out"), pointer)
    pointers |= dict.fromkeys(("row_gaps", "column_gaps", "distance"), "*i32") | {"mask": "*u8"}
    constants = {"channel": ["channel_stride"], "pixel": ["pixel_stride"], "all": ["c", "h", "w", "pixel_stride"]}[ones]
    blocks = {
        "FILL_RING": ones != "all",
        "BLOCK": 1 if ones == "all" else 4,
        "STEP": 4,
        "CHANNELS": 256 // (4 if pointer == "*fp32" else 2),
    }
    for kernel in ("line_gaps", "distances", "maxima_of_three", "fill"):
        function = getattr(triton_fill, kernel)
        names = list(function.arg_names)
        variable = {parameter.name for parameter in function.params if parameter.do_not_specialize}
        values = {name: 1 for name in constants if name in names and name not in variable}
        values |= {name: size for name, size in blocks.items() if name in names}
        signature = {name: "constexpr" if name in values else pointers.get(name, "i32") for name in names}
        aligned = [name for name in names if name not in values and name not in variable]
        divisible = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
        source = compiler.ASTSource(
            function, signature, {(names.index(name),): value for name, value in values.items()}, divisible
        )
        made = compiler.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 1})
        assert len(made.asm["cubin"]) > 0
        number = NUMBERS[pointer]
        short = rf"tt\.addptr .*tensor<[0-9x]*!tt\.ptr<{number}>.*tensor<[0-9x]*xi32>"
        assert not re.search(short, made.asm["ttir"])
        if kernel == "fill" and ones == "channel":
            assert "ld.global.v4.b32" in made.asm["ptx"]


# --- what only a GPU can show ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@needs_gpu
def test_this_gpu_runs_the_kernels(dtype):
    from sfi_ros.network.mpi.triton_fill import fill_on_gpu

    assert operator._gpu_implementation(torch.device("cuda", 0), dtype) is fill_on_gpu


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 512, 64, 128), (3, 192, 32, 64), (2, 3, 270, 479)])
@needs_gpu
def test_large_features(shape, dtype, layout):
    features, mask = some_features(shape, dtype, layout), some_masks(range(shape[0]), *shape[2:])
    for boundary in mpi.BOUNDARIES:
        assert torch.equal(filled(features, mask, boundary), reference(features, mask, boundary))


@needs_gpu
def test_offsets_of_more_than_32_bits():
    if torch.cuda.mem_get_info()[0] < 24e9:
        pytest.skip("needs 24 GB of GPU memory")
    for layout in (torch.contiguous_format, torch.channels_last):
        features = torch.empty(1, 130, 4096, 4096, dtype=torch.float16, device="cuda", memory_format=layout).zero_()
        features[..., -40:, -40:] = torch.randn(1, 130, 40, 40, device="cuda")
        mask = torch.zeros(1, 1, 4096, 4096, dtype=torch.bool, device="cuda")
        mask[..., -30:, -25:] = True
        expected = reference(features[..., -40:, -40:], mask[..., -40:, -40:])
        assert torch.equal(filled(features, mask)[..., -40:, -40:], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])  # float64 has no kernel, but must not wait either
@needs_gpu
def test_never_waits_for_the_gpu(dtype):
    features = some_features((2, 16, 40, 50), dtype, "contiguous").requires_grad_()
    mask = some_masks(range(2), 40, 50)
    mpi.max_pool_inpaint(features, mask)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = mpi.max_pool_inpaint(features, mask)
        result.sum().backward()
        fallback = fill_by_edges(features, mask, True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(result, reference(features, mask))
    assert torch.equal(fallback, result)
    assert torch.equal(features.grad == 0, mpi.dilate(mask).expand_as(features))


@pytest.mark.parametrize("compiled", [False, True])
@needs_gpu
def test_cuda_graph_serves_another_mask(compiled):
    function = torch.compile(mpi.max_pool_inpaint, fullgraph=True) if compiled else mpi.max_pool_inpaint
    features = some_features((2, 48, 33, 60), torch.float16, "channels last")
    foreground = some_masks(range(2), 33, 60).float()
    with torch.no_grad():
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            function(features, foreground)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = function(features, foreground)
        for masks in some_masks(range(7), 33, 60).split([2, 2, 2, 1]):
            foreground.zero_()[: len(masks)] = masks.float()
            features.normal_()
            graph.replay()
            assert torch.equal(result, reference(features, foreground > 0.5))


@needs_gpu
def test_operator_keeps_the_rules_of_pytorch_on_a_gpu():
    features, mask = some_features((2, 5, 9, 7), torch.float32, "channels last"), some_masks(range(2), 9, 7)
    torch.library.opcheck(torch.ops.sfi_ros.max_pool_inpaint.default, (features.requires_grad_(), mask, True))
