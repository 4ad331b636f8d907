"""Max-pooling as inpainting (MPI): background features grow into the foreground.

Lu & Dubbelman, RA-L 2020, Algorithm 1: max-pool the background features F·B and the background mask B with 3x3
windows until B covers the image; each pixel keeps the value that it had when B first reached it. With d(p) the
Chebyshev distance from pixel p to the background, that value is the channel-wise maximum of F·B over the window
of radius d(p), which holds no background nearer than d(p), and, around p itself, zeros.

Four implementations of that one function, equal in every value:

* `literal.algorithm_1`, the published loop, kept as the oracle of the tests and the baseline of the benchmarks;
* `rings.fill_by_rings`, for CPUs: visits each foreground pixel once, nearest ring first, so that its cost follows
  the foreground's area and not the image's;
* `triton_fill.fill_on_gpu`, for GPUs: a fixed sequence of Triton kernels;
* `edges.fill_by_edges`, for exported files, for gradients that reach the background, and for devices without one of
  the others: a fixed number of tensor operations, logarithmic in the image's size.

Only the second looks at a value of the mask on the host. The second and third are one operator of PyTorch's,
`sfi_ros::max_pool_inpaint` (`operator.py`), which `torch.compile` and CUDA graphs take as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfi_ros.network.mpi.edges import distance_to_background, fill_by_edges
from sfi_ros.network.mpi.inputs import dilate, region_to_fill, sample_mask
from sfi_ros.network.mpi.literal import algorithm_1
from sfi_ros.network.mpi.operator import inpaint
from sfi_ros.network.options import BOUNDARIES, Boundary

__all__ = [
    "BOUNDARIES",
    "Boundary",
    "algorithm_1",
    "dilate",
    "distance_to_background",
    "max_pool_inpaint",
    "sample_mask",
    "zero_fill",
]


def max_pool_inpaint(
    features: Tensor,
    foreground: Tensor,
    *,
    boundary: Boundary = "dilated",
    detach: bool = True,
    longest: int | None = None,
) -> Tensor:
    """Replace the features of the foreground by those of the nearest background (paper, section III-B).

    Args:
        features: (N, C, h, w) floating point.
        foreground: (N, 1, H, W) probability, 0/1 mask or bool, of any size; it is brought to (h, w) by nearest
            sampling and thresholded at 0.5.
        boundary: which pixels are filled. "dilated" (paper): the foreground grown by one pixel, since features at
            the border of an object are mixed. "raw" (released code): the foreground only; the ring around it keeps
            its own features, though these are never copied inwards.
        detach: whether gradients stop at the filled features (as in the released code). The features that are kept
            carry theirs either way.
        longest: at least h and w, where a graph for images of any size is traced; None elsewhere.

    Returns:
        (N, C, h, w), of the dtype of `features`. An image without any background is zero where it is filled.

    Raises:
        ValueError: for shapes, dtypes or a boundary other than the above.
    """
    mask = sample_mask(foreground, features)
    fill_ring = _fills_ring(boundary)
    source_gets_gradient = not detach and features.requires_grad and torch.is_grad_enabled()
    if source_gets_gradient or longest is not None or _is_exporting():
        return fill_by_edges(features, mask, fill_ring, detach=detach, longest=longest)
    return inpaint(features, mask, fill_ring)


def zero_fill(features: Tensor, foreground: Tensor, *, boundary: Boundary = "dilated") -> Tensor:
    """Blacking out, the naive alternative to MPI (paper, Table IV). Arguments as for `max_pool_inpaint`."""
    mask = sample_mask(foreground, features)
    return features.masked_fill(region_to_fill(mask, _fills_ring(boundary)), 0.0)


def _fills_ring(boundary: Boundary) -> bool:
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary must be one of {', '.join(BOUNDARIES)}; got {boundary!r}")
    return boundary == "dilated"


def _is_exporting() -> bool:
    """Whether a file is being made, which will run where our operator does not exist; both ONNX exporters count."""
    # Dynamo comes first: PyTorch up to 2.11 calls what `torch.compile` does an export, too.
    return torch.jit.is_tracing() or (not torch.compiler.is_dynamo_compiling() and _exports())


# PyTorch 2.6 has one name for both.
_exports = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
