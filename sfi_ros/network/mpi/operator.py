"""The operator `sfi_ros::max_pool_inpaint`: distance and fill in one node of any graph that PyTorch makes.

It is registered function by function: the first call of a `torch.library.custom_op` imports PyTorch's compiler.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from sfi_ros.network.mpi.edges import fill_by_edges
from sfi_ros.network.mpi.inputs import memory_format, region_to_fill
from sfi_ros.network.mpi.rings import fill_by_rings

log = logging.getLogger(__name__)


NAME: Final = "sfi_ros::max_pool_inpaint"

torch.library.define(
    NAME, "(Tensor features, Tensor mask, bool fill_ring) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,)
)
torch.library.impl(NAME, "default", fill_by_edges)  # on devices that have no own implementation
torch.library.impl(NAME, "cpu", fill_by_rings)


def inpaint(features: Tensor, mask: Tensor, fill_ring: bool) -> Tensor:
    """Fill the dilated mask, or the mask only, with the background's features; gradients stop at what is filled.

    Args:
        features: (N, C, h, w) floating point, of any memory format.
        mask: (N, 1, h, w) bool on the same device, the foreground before its dilation.
        fill_ring: whether the ring that the dilation adds is filled, too.

    Returns:
        (N, C, h, w) of the same dtype; channels last where the features are, else contiguous.
    """
    return torch.ops.sfi_ros.max_pool_inpaint.default(features, mask, fill_ring)


@torch.library.impl(NAME, "cuda")
def _(features: Tensor, mask: Tensor, fill_ring: bool) -> Tensor:
    has_kernel = features.dtype in (torch.float32, torch.float16, torch.bfloat16)
    fill = _gpu_implementation(features.device, features.dtype) if has_kernel else fill_by_edges
    return fill(features, mask, fill_ring)


@functools.cache
def _gpu_implementation(device: torch.device, dtype: torch.dtype) -> Callable[[Tensor, Tensor, bool], Tensor]:
    """Return the Triton kernels where they run, else tensor operations: slower, also without waiting."""
    try:
        from sfi_ros.network.mpi.triton_fill import fill_on_gpu

        features = torch.zeros(1, 64, 8, 16, device=device, dtype=dtype)
        fill_on_gpu(features, features[:, :1] > 0, True)
    except torch.cuda.OutOfMemoryError:
        raise  # says nothing about Triton
    except Exception as error:  # whatever is wrong with Triton here, a robot should drive on
        log.warning(
            "Max-pooling as inpainting in %s runs slower than it could on %s, because Triton does not work: %s. "
            "Remedy: `pip install triton` in the version that your PyTorch names, a C compiler (gcc) and Python's "
            "headers (python3-dev).",
            dtype,
            device,
            error,
        )
        return fill_by_edges
    return fill_on_gpu


@torch.library.register_fake(NAME)
def _(features: Tensor, mask: Tensor, fill_ring: bool) -> Tensor:
    return torch.empty_like(features, memory_format=memory_format(features))


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    _, mask, ctx.fill_ring = inputs
    ctx.save_for_backward(mask)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    (mask,) = ctx.saved_tensors
    return gradient.masked_fill(region_to_fill(mask, ctx.fill_ring), 0.0), None, None


torch.library.register_autograd(NAME, _backward, setup_context=_setup_context)
