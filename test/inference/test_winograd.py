"""Winograd's convolution beside the plain one: any size, batch and activation, and where an engine uses it."""

import pytest
import torch
from torch import nn

from sfi_ros.inference.fused_network import folded_for_onednn
from sfi_ros.inference.winograd import WinogradConv, is_wide_3x3
from sfi_ros.network import zoo

WIDE = {"kernel_size": 3, "padding": 1}


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 13), (1, 1), (3, 30), (18, 4)])
@pytest.mark.parametrize("activation", [("none", ()), ("relu", ()), ("hardtanh", (0.0, 6.0))])
@torch.inference_mode()
def test_it_equals_the_plain_convolution(height, width, activation):
    torch.manual_seed(height)
    conv = nn.Conv2d(128, 136, **WIDE, bias=activation[0] != "none").requires_grad_(False)
    behind = {"none": nn.Identity(), "relu": nn.ReLU(), "hardtanh": nn.Hardtanh(0.0, 6.0)}[activation[0]]
    images = 4 * torch.randn(2, 128, height, width).to(memory_format=torch.channels_last)
    found = WinogradConv(conv, activation)(images)
    expected = behind(conv.double()(images.double()))
    assert found.is_contiguous(memory_format=torch.channels_last)
    largest = float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-5 * largest)


@pytest.mark.parametrize(
    "other",
    [{"stride": 2}, {"dilation": 2, "padding": 2}, {"groups": 128}, {"padding": 0}, {"kernel_size": 5, "padding": 2}],
)
def test_it_takes_nothing_else(other):
    assert is_wide_3x3(nn.Conv2d(128, 128, **WIDE))
    assert not is_wide_3x3(nn.Conv2d(128, 128, **(WIDE | other)))
    assert not is_wide_3x3(nn.Conv2d(64, 128, **WIDE))


def test_an_engine_uses_it_in_float32_only():
    network = zoo.build("fast-mobilenetv2").eval()
    used = {
        dtype: [name for name, part in folded_for_onednn(network, dtype).named_modules() if type(part) is WinogradConv]
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert used == {torch.float32: ["decoder.fuse.0", "decoder.fuse.1"], torch.bfloat16: []}
