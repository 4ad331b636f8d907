"""Depthwise convolutions in bfloat16: the results of plain autocast, and the gradients of float32."""

import pytest
import torch
from torch import nn

from training.learning import depthwise
from training.learning.depthwise import quick_depthwise

CPU = torch.device("cpu")


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 1, 1), (5, 2, 1)])
def test_gradients_are_those_of_float32(kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(16, 16, kernel, stride, kernel // 2 * dilation, dilation, groups=16, bias=False)
    features = torch.randn(2, 16, 12, 20).to(torch.bfloat16).float().contiguous(memory_format=torch.channels_last)
    convolution.weight.data = convolution.weight.data.to(torch.bfloat16).float()
    features.requires_grad_()
    expected = torch.autograd.grad(convolution(features).square().mean(), (features, convolution.weight))
    with torch.autocast("cpu", torch.bfloat16), quick_depthwise(CPU):
        output = convolution(features)
        got = torch.autograd.grad(output.float().square().mean(), (features, convolution.weight))
    assert output.grad_fn.name() == "_DepthwiseBackward" and output.dtype == torch.bfloat16
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * float(other.abs().max()))


def test_other_convolutions_and_precisions_are_left_alone() -> None:
    features = torch.randn(1, 16, 8, 8)
    dense, deep = nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3, groups=16, bias=False)
    with torch.autocast("cpu", torch.bfloat16), quick_depthwise(CPU):
        assert dense(features).grad_fn.name() == "ConvolutionBackward0"
        same = nn.Conv2d(16, 16, 3, padding="same", groups=16, bias=False)
        assert same(features).shape == features.shape
    with quick_depthwise(CPU):
        assert deep(features).grad_fn.name() == "ConvolutionBackward0"
    with torch.autocast("cpu", torch.bfloat16):
        assert not isinstance(quick_depthwise(torch.device("cuda")), depthwise._QuickDepthwise)
