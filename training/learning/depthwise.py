"""Depthwise convolutions in bfloat16 on a CPU.

PyTorch computes most of their gradients there in bfloat16 by plain loops, several times slower than in float32, and a
depthwise encoder has little else that takes time. Here such a gradient is computed in float32. Results agree with
bfloat16's own to its rounding; a step of fast-efficientnet-lite0 took 0.73 of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_gradients = torch.ops.aten.convolution_backward


def quick_depthwise(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which depthwise convolutions of bfloat16 autocast have quick gradients on a CPU.

    It does nothing on other devices and in other precisions.
    """
    is_needed = device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return _QuickDepthwise() if is_needed and torch.get_autocast_dtype("cpu") == torch.bfloat16 else nullcontext()


class _QuickDepthwise(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace depthwise convolutions as `torch.nn.Conv2d` calls them, and nothing else."""
        if func is functional.conv2d and len(args) == 7:
            features, weight, bias, stride, padding, dilation, groups = args
            if groups > 1 and bias is None and not isinstance(padding, str):  # not "same"
                halves = features.to(torch.bfloat16), weight.to(torch.bfloat16)
                return _Depthwise.apply(*halves, list(stride), list(padding), list(dilation), groups)
        return func(*args, **(kwargs or {}))


class _Depthwise(torch.autograd.Function):
    """A convolution without bias, of bfloat16 features and weights."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.geometry = (stride, padding, dilation, False, [0, 0], groups)
        return torch.ops.aten.convolution(features, weight, None, *ctx.geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        features, weight = ctx.saved_tensors
        stride, _, dilation, *_ = geometry = ctx.geometry
        wanted = ctx.needs_input_grad[:2]
        keeps_size = max(stride) == 1

        def computed(dtype: torch.dtype, of: Sequence[bool]) -> Sequence[Tensor | None]:
            tensors = (tensor.to(dtype) for tensor in (gradient, features, weight))
            *found, _ = _gradients(*tensors, None, *geometry, [*of, False])
            return found

        if keeps_size and max(dilation) == 1 and weight.shape[-1] <= 3:  # bfloat16 is quick here
            return (*computed(torch.bfloat16, wanted), None, None, None, None)
        of_features = computed(torch.bfloat16 if keeps_size else torch.float32, [wanted[0], False])[0]
        of_weight = computed(torch.float32, [False, wanted[1]])[1]
        return (
            None if of_features is None else of_features.to(features.dtype),
            None if of_weight is None else of_weight.to(weight.dtype),
            *[None] * 4,
        )
