"""Max-pooling as inpainting: the fast implementations equal Algorithm 1 in every value, for any input."""

from __future__ import annotations

import json
import logging
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import REFERENCE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks import mpi as benchmark
from sfi_ros.network import mpi
from sfi_ros.network.mpi import operator
from sfi_ros.network.mpi.edges import fill_by_edges
from sfi_ros.network.mpi.rings import fill_by_rings

FILLS = {"rings": fill_by_rings, "edges": fill_by_edges}


def reference(features: Tensor, foreground: Tensor, boundary: str = "dilated", detach: bool = True) -> Tensor:
    """Algorithm 1, put together as the paper does."""
    mask = mpi.sample_mask(foreground, features)
    dilated = mpi.dilate(mask)
    patch = mpi.algorithm_1(features.detach() if detach else features, dilated)
    return torch.where(dilated if boundary == "dilated" else mask, patch, features)


def filled(fill, features: Tensor, foreground: Tensor, boundary: str = "dilated") -> Tensor:
    """One of the fast implementations, whatever the device would choose."""
    return fill(features, mpi.sample_mask(foreground, features), boundary == "dilated")


@st.composite
def scenes(draw):
    """Features of any sign, format and dtype, with masks from empty over blobs to full, mixed in one batch."""
    n, c = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    h, w = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    features = torch.randn(n, c, h, w, generator=generator)
    sign = draw(st.sampled_from(["any", "positive", "negative"]))
    features = {"any": features, "positive": features.relu(), "negative": -features.abs()}[sign]
    features = features.to(draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16])))
    layout = draw(st.sampled_from(["contiguous", "channels last", "neither"]))
    if layout == "channels last":
        features = features.contiguous(memory_format=torch.channels_last)
    elif layout == "neither":
        features = features.repeat(1, 2, 1, 2)[:, ::2, :, :w]
    factor = draw(st.integers(1, 3))
    masks = []
    for _ in range(n):
        share = draw(st.sampled_from([0.0, 0.02, 0.3, 0.8, 1.0]))
        noise = torch.rand(1, 1, h * factor, w * factor, generator=generator)
        mask = (noise < share).float()
        if draw(st.booleans()):
            mask = nn.functional.max_pool2d(mask, 3, 1, 1)
        if draw(st.booleans()):
            top, left = draw(st.integers(0, h * factor - 1)), draw(st.integers(0, w * factor - 1))
            mask[..., top : top + draw(st.integers(1, 30)), left : left + draw(st.integers(1, 30))] = 1
        masks.append(mask)
    return features, torch.cat(masks)


@pytest.mark.parametrize("boundary", mpi.BOUNDARIES)
@pytest.mark.parametrize("name", FILLS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scene=scenes())
def test_equals_algorithm_1(name, boundary, scene):
    features, foreground = scene
    result = filled(FILLS[name], features, foreground, boundary)
    assert result.dtype == features.dtype
    if features.is_contiguous() or features.is_contiguous(memory_format=torch.channels_last):
        assert result.is_contiguous(memory_format=operator.memory_format(features))
    assert torch.equal(result, reference(features, foreground, boundary))


@settings(max_examples=60, deadline=None)
@given(scene=scenes())
def test_public_function_equals_algorithm_1(scene):
    features, foreground = scene
    assert torch.equal(mpi.max_pool_inpaint(features, foreground), reference(features, foreground))


def shapes_of_holes() -> dict[str, Tensor]:
    masks = {name: torch.zeros(1, 1, 24, 40) for name in ("empty", "pixel", "border", "ring", "cross", "all but one")}
    masks["pixel"][..., 12, 20] = 1
    masks["border"][..., :, :15] = 1
    masks["ring"][..., 4:20, 6:30] = 1
    masks["ring"][..., 9:15, 12:24] = 0
    masks["cross"][..., 10:14, :] = 1
    masks["cross"][..., :, 18:22] = 1
    masks["all but one"][:] = 1
    masks["all but one"][..., 3, 3] = 0
    masks["full"] = torch.ones(1, 1, 24, 40)
    return masks


@pytest.mark.parametrize("kind", shapes_of_holes())
@pytest.mark.parametrize("name", FILLS)
def test_shapes_of_holes(name, kind):
    features = torch.randn(1, 6, 24, 40, generator=torch.Generator().manual_seed(1))
    mask = shapes_of_holes()[kind]
    for boundary in mpi.BOUNDARIES:
        assert torch.equal(filled(FILLS[name], features, mask, boundary), reference(features, mask, boundary))


@pytest.mark.parametrize("name", FILLS)
def test_image_without_background_is_zero_and_leaves_others_alone(name):
    features = torch.rand(2, 3, 8, 9) + 1
    mask = torch.zeros(2, 1, 8, 9)
    mask[0] = 1
    mask[1, :, 2:5, 2:6] = 1
    result = filled(FILLS[name], features, mask)
    assert result[0].eq(0).all()
    assert torch.equal(result[1:], filled(FILLS[name], features[1:], mask[1:]))
    assert (result[1] > 0).all()


def test_closed_form():
    """The result is the maximum over the window whose radius is the distance to the background."""
    features = torch.randn(1, 3, 15, 21, generator=torch.Generator().manual_seed(2)).relu()
    mask = torch.zeros(1, 1, 15, 21)
    mask[..., 3:12, 5:17] = 1
    background = ~mpi.dilate(mask > 0)[0, 0]
    result = mpi.max_pool_inpaint(features, mask)
    for y in range(15):
        for x in range(21):
            if background[y, x]:
                continue
            radius = next(
                r for r in range(21) if background[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1].any()
            )
            window = (slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1))
            expected = (features[0] * background)[:, window[0], window[1]].amax((1, 2))
            assert torch.equal(result[0, :, y, x], expected)


def test_distance_is_chebyshev():
    dilated = torch.zeros(2, 1, 9, 13, dtype=torch.bool)
    dilated[0, 0, 1:8, 2:11] = True
    distance = mpi.distance_to_background(dilated)
    for y in range(9):
        for x in range(13):
            expected = min(max(abs(y - i), abs(x - j)) for i in range(9) for j in range(13) if not dilated[0, 0, i, j])
            assert distance[0, y, x] == expected
    assert distance[1].eq(0).all()


@pytest.mark.parametrize("name", FILLS)
def test_feature_that_is_not_finite_spreads_as_in_algorithm_1(name):
    features = torch.randn(1, 2, 20, 20, generator=torch.Generator().manual_seed(5))
    features[0, 0, 4, 10], features[0, 0, 10, 4], features[0, 1, 4, 10] = torch.nan, torch.inf, -torch.inf
    features[0, :, 9, 9] = torch.nan  # in the foreground: read by nobody
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 6:16, 6:16] = 1
    result, expected = filled(FILLS[name], features, mask), reference(features, mask)
    assert 1 < result.isnan().sum() < 60
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.nan_to_num(nan=-1.0), expected.nan_to_num(nan=-1.0))


def test_a_batch_without_foreground_or_without_images():
    features = torch.randn(2, 3, 6, 5)
    result = mpi.max_pool_inpaint(features, torch.zeros(2, 1, 12, 10))
    assert torch.equal(result, features)
    assert result.data_ptr() != features.data_ptr()
    assert mpi.max_pool_inpaint(features[:0], torch.zeros(0, 1, 6, 5)).shape == (0, 3, 6, 5)


@pytest.mark.parametrize("boundary", mpi.BOUNDARIES)
@pytest.mark.parametrize("detach", [True, False])
def test_gradients_equal_those_of_algorithm_1(detach, boundary):
    generator = torch.Generator().manual_seed(3)
    values = torch.randperm(2 * 5 * 12 * 17, generator=generator).double() + 1  # no ties, no zeros
    features = values.view(2, 5, 12, 17) / 100
    mask = (torch.rand(2, 1, 12, 17, generator=generator) < 0.3).float()
    mask[1, :, 2:9, 3:14] = 1
    weight = torch.randn(features.shape, generator=generator, dtype=torch.double)
    gradients = []
    for function in (
        lambda f: reference(f, mask, boundary, detach),
        lambda f: mpi.max_pool_inpaint(f, mask, boundary=boundary, detach=detach),
    ):
        leaf = features.clone().requires_grad_()
        (function(leaf) * weight).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-12)


def test_patch_carries_no_gradient_by_default():
    features = torch.rand(1, 2, 6, 6, requires_grad=True)
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., 2:4, 2:4] = 1
    mpi.max_pool_inpaint(features, mask).sum().backward()
    dilated = mpi.dilate(mask > 0).expand(1, 2, 6, 6)
    assert features.grad[dilated].eq(0).all()
    assert features.grad[~dilated].eq(1).all()


@pytest.mark.parametrize("fill_ring", [True, False])
@pytest.mark.parametrize(
    "features",
    [
        torch.randn(2, 3, 9, 7),
        torch.randn(1, 4, 6, 8).contiguous(memory_format=torch.channels_last).bfloat16(),
        torch.randn(2, 1, 5, 6),  # both contiguous and channels last
        torch.randn(1, 6, 8, 9)[:, ::2, :, 1:],  # neither
        torch.randn(2, 3, 9, 7, requires_grad=True),
        torch.randn(1, 4, 6, 8).contiguous(memory_format=torch.channels_last).requires_grad_(),
    ],
)
def test_operator_keeps_the_rules_of_pytorch(features, fill_ring):
    """Schema, fake tensors, autograd and tracing with dynamic shapes, as `torch.library` wants them."""
    mask = torch.rand(features.shape[0], 1, *features.shape[2:]) < 0.4
    torch.library.opcheck(torch.ops.sfi_ros.max_pool_inpaint.default, (features, mask, fill_ring))


class Inpaint(nn.Module):
    def forward(self, features: Tensor, foreground: Tensor) -> Tensor:
        return mpi.max_pool_inpaint(features, foreground)


def example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(2, 4, 16, 24, generator=generator)
    mask = torch.zeros(2, 1, 64, 96)
    mask[0, :, 10:50, 20:80] = 1
    mask[1, :, 40:, :30] = 1
    return features, mask


def our_operators(graph: torch.fx.Graph) -> int:
    return sum("sfi_ros" in str(node.target) for node in graph.nodes)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_to_one_operator_without_graph_breaks(backend):
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor needs g++ for a CPU")
    counted = []

    def count(module, inputs):
        counted.append(our_operators(module.graph))
        return torch._dynamo.lookup_backend(backend)(module, inputs)

    features, mask = example()
    compiled = torch.compile(Inpaint(), fullgraph=True, backend=count)
    with torch.no_grad():
        for layout in (torch.contiguous_format, torch.channels_last):
            features = features.contiguous(memory_format=layout)
            result = compiled(features, mask)
            assert result.is_contiguous(memory_format=layout)
            assert torch.equal(result, reference(features, mask))
            assert torch.equal(compiled(features, 1 - mask), reference(features, 1 - mask))  # same graph, another mask
    assert counted == [1, 1]


def test_compiled_training_step_has_the_same_gradient():
    features, mask = example()
    for detach in (True, False):
        gradients = []
        function = torch.compile(mpi.max_pool_inpaint, fullgraph=True, backend="aot_eager")
        for inpaint in (mpi.max_pool_inpaint, function):
            leaf = features.clone().requires_grad_()
            (inpaint(leaf * 2, mask, detach=detach) ** 2).sum().backward()
            gradients.append(leaf.grad)
        torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:FutureWarning")
def test_exports_to_plain_tensor_operations():
    features, mask = example()
    exported = torch.export.export(Inpaint(), (features, mask), strict=False)  # as torch.onnx does, on PyTorch 2.6, too
    assert our_operators(exported.graph) == 0
    traced = torch.jit.trace(Inpaint(), (features, mask), check_trace=False)
    assert not any(node.kind().startswith("sfi_ros") for node in traced.inlined_graph.nodes())
    for module in (exported.module(), traced):
        for foreground in (mask, 1 - mask, torch.zeros_like(mask), torch.ones_like(mask)):
            assert torch.equal(module(features, foreground), reference(features, foreground))


def test_gpu_without_triton_falls_back_with_one_warning(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "sfi_ros.network.mpi.triton_fill", None)  # its import fails from now on
    operator._gpu_implementation.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert operator._gpu_implementation(torch.device("cpu"), torch.float16) is fill_by_edges
    finally:
        operator._gpu_implementation.cache_clear()
    (record,) = caplog.records
    assert "Triton does not work" in record.getMessage()
    assert "pip install triton" in record.getMessage()


def test_golden_outputs_of_the_released_code():
    golden = np.load(REFERENCE / "released_mpi.npz")
    features = torch.from_numpy(golden["features"])
    bits = np.unpackbits(golden["foreground_probability"])[: 3 * 256 * 512]
    foreground = torch.from_numpy(bits.reshape(3, 1, 256, 512)).float()
    patch = mpi.algorithm_1(features, mpi.dilate(mpi.sample_mask(foreground, features)))
    assert torch.equal(patch, torch.from_numpy(golden["patch"]))
    inpainted = torch.from_numpy(golden["inpainted"])
    assert torch.equal(mpi.max_pool_inpaint(features, foreground, boundary="raw"), inpainted)
    assert torch.equal(filled(fill_by_edges, features, foreground, "raw"), inpainted)


def test_benchmark_checks_before_it_times(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "SIZES", ((4, 12, 16),))
    benchmark.main(["--repeats", "1", "--json", str(tmp_path / "mpi.json")])
    rows = json.loads((tmp_path / "mpi.json").read_text())["tables"][0]["rows"]
    assert len(rows) == 6
    assert all(row["ratio"] == pytest.approx(row["algorithm_1_ms"] / row["fast_ms"]) for row in rows)
    monkeypatch.setattr(benchmark, "literal", lambda features, mask: features + 1)
    with pytest.raises(SystemExit, match="differs from Algorithm 1"):
        benchmark.main([])


def test_zero_fill():
    features, mask = torch.rand(1, 2, 8, 8) + 1, torch.zeros(1, 1, 8, 8)
    mask[..., 3:5, 3:5] = 1
    assert mpi.zero_fill(features, mask).eq(0).sum() == 2 * 16
    assert mpi.zero_fill(features, mask, boundary="raw").eq(0).sum() == 2 * 4


@pytest.mark.parametrize(
    ("features", "foreground", "message"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2, 1, 4, 4), "features must be"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 1, 4, 4), "features must be"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 2, 4, 4), r"foreground must be \(N, 1, H, W\)"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(1, 1, 4, 4), "N = 2"),
    ],
)
def test_wrong_inputs_are_named(features, foreground, message):
    with pytest.raises(ValueError, match=message):
        mpi.max_pool_inpaint(features, foreground)


def test_unknown_boundary_is_named():
    with pytest.raises(ValueError, match="boundary must be one of dilated, raw; got 'soft'"):
        mpi.max_pool_inpaint(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), boundary="soft")
