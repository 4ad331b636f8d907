"""Encoders: cut where features are non-negative, exact where ImageNet weights are loaded, and any of timm's by name."""

from __future__ import annotations

import sys
from typing import get_args

import pytest
import torch
import torchvision
from conftest import shared
from safetensors.torch import load_file, save_file
from torch import Tensor

from sfi_ros.errors import OptionError, UnavailableError
from sfi_ros.inference.fused_network import folded, folded_for_onednn
from sfi_ros.inference.processor import this_processor
from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.backbones import FAST_ENCODERS, ResNetEarly, ResNetLate, efficientnet_lite0
from sfi_ros.network.classifiers import Architecture, build_classifier
from sfi_ros.network.image_format import IMAGENET_MEAN, IMAGENET_STD
from sfi_ros.network.timm_encoder import timm_encoder

HEADS = ("fc", "classifier")
LITE0 = "weights/efficientnet_lite0_imagenet_fp16.safetensors"
CPU = torch.device("cpu")


def normalized(picture: Tensor, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> Tensor:
    """(N, 3, H, W) of range 0..1, normalised."""
    return (picture - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def picture(*size: int) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(3))


def close(got: Tensor, expected: Tensor) -> bool:
    assert got.shape == expected.shape
    return bool((got - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("name", FAST_ENCODERS)
@torch.no_grad()
def test_pieces_fit_and_mpi_sees_no_negative_feature(name):
    encoder = FAST_ENCODERS[name].cut(None)
    stem, early = encoder.early.eval()(normalized(picture(64, 96)))
    assert stem.shape == (1, encoder.early.stem_channels, 16, 24)
    assert early.shape == (1, encoder.early.channels, 8, 12)
    assert early.min() >= 0
    assert early.any()
    block3, block4 = encoder.late.eval()(early)
    assert (block3.shape[1], block4.shape[1]) == encoder.late.channels
    assert block3.shape[2:] == block4.shape[2:] == (4, 6)
    assert encoder.foreground_late.eval()(early)[1].shape[2:] == (2, 3)
    ids = [{id(p) for p in part.parameters()} for part in (encoder.early, encoder.late, encoder.foreground_late)]
    assert not (ids[0] & ids[1] or ids[1] & ids[2] or ids[0] & ids[2])


@pytest.mark.parametrize("architecture", get_args(Architecture))
@torch.no_grad()
def test_classifiers_are_torchvisions(architecture):
    """Names, random numbers and results: its weights load, and seeds give the networks that they gave."""
    torch.manual_seed(5)
    theirs = torchvision.models.get_model(architecture, weights=None)
    after_theirs = torch.rand(1)
    torch.manual_seed(5)
    ours = build_classifier(architecture)
    assert torch.equal(torch.rand(1), after_theirs)
    state = {name: tensor for name, tensor in theirs.state_dict().items() if name.split(".")[0] not in HEADS}
    assert list(ours.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
    image = normalized(picture(64, 96))
    if architecture == "mobilenet_v2":
        assert torch.equal(ours.features(image), theirs.features(image))
        return
    for got, expected in zip(*(cut_resnet(model, image) for model in (ours, theirs)), strict=True):
        assert torch.equal(got, expected)


def cut_resnet(model: torch.nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    stem, early = ResNetEarly(model)(image)
    return (stem, early, *ResNetLate(model, strides=(2, 2), dilations=(1, 1))(early))


def test_lite0_has_no_download():
    with pytest.raises(OptionError, match=r"no download for fast-efficientnet-lite0: pass the path"):
        efficientnet_lite0("imagenet")


@torch.no_grad()
def test_lite0_pads_with_mid_grey(tmp_path):
    """As in the network that its weights come from: a grey picture has no border."""
    save_file(efficientnet_lite0(None)[0].state_dict(), tmp_path / "lite0.safetensors")
    early = zoo.build("fast-efficientnet-lite0", pretrained=tmp_path / "lite0.safetensors").eval().early
    stem = early.to_stride_4[0](normalized(torch.full((1, 3, 64, 64), 0.5)) - early.mid_grey)
    assert stem.abs().max() < 1e-5
    white = early.to_stride_4[0](normalized(torch.ones(1, 3, 64, 64)) - early.mid_grey)
    assert not torch.allclose(white[..., -1], white[..., -2])  # one row and one column of padding, behind
    torch.testing.assert_close(white[..., 0], white[..., 1])


@pytest.mark.parametrize("size", [(64, 96), (128, 160)])
@torch.no_grad()
def test_lite0_equals_timms(size):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    path = shared(LITE0)
    encoder = FAST_ENCODERS["efficientnet-lite0"].cut(path)
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    theirs.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    features, expected = theirs.bn1(theirs.conv_stem(2 * picture(*size) - 1)), []
    for stage in theirs.blocks[:6]:
        features = stage(features)
        expected.append(features)
    stem, early = encoder.early.eval()(normalized(picture(*size)))
    block3, block4 = encoder.foreground_late.eval()(early)
    assert close(stem, expected[1])
    assert close(block3, expected[4])
    assert close(block4, expected[5])


@torch.no_grad()
def test_lite0_folds_as_the_others():
    torch.manual_seed(0)
    network = zoo.build("fast-efficientnet-lite0").eval()
    image, mask = normalized(picture(64, 96)), torch.zeros(1, 1, 64, 96)
    mask[..., 20:50, 30:60] = 1
    expected = network(image, mask).background
    assert close(folded(network, CPU, torch.float32)(image, mask).background, expected)
    if this_processor().has_onednn:
        image = image.contiguous(memory_format=torch.channels_last)
        assert close(folded_for_onednn(network, torch.float32)(image, mask).background, expected)


# --- timm ----------------------------------------------------------------------------------------------------------

# Names with norms that activate, convolutions that pad, layer norms, and plain ones.
SOME = ("resnet18d", "mobilenetv3_small_050", "tf_efficientnet_lite0", "convnext_atto", "regnety_002")


@pytest.mark.parametrize("name", SOME)
@torch.no_grad()
def test_parts_of_timm_compute_what_the_whole_does(name):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    encoder = timm_encoder(name).cut(None)
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=0).eval()
    configuration = whole.pretrained_cfg
    image = normalized(picture(64, 96), configuration["mean"], configuration["std"])
    expected = {64 // f.shape[2]: f for f in whole.forward_intermediates(image, intermediates_only=True)}
    stem, early = encoder.early.eval()(normalized(picture(64, 96)))
    block3, block4 = encoder.late.eval()(early)
    assert early.min() >= 0
    positive, negative = early.chunk(2, 1)
    for got, stride in ((stem, 4), (positive - negative, 8), (block3, 16), (block4, 32)):
        assert close(got, expected[stride])


@pytest.mark.parametrize("name", SOME)
@torch.no_grad()
def test_networks_of_timm_fold_train_and_load(name, tmp_path):
    pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    network = zoo.build(f"fast-timm:{name}").eval()
    image, mask = normalized(picture(64, 96)), torch.zeros(1, 1, 64, 96)
    mask[..., 20:50, 30:60] = 1
    expected = network(image, mask).background
    assert close(folded(network, CPU, torch.float32)(image, mask).background, expected)
    if this_processor().has_onednn:
        last = image.contiguous(memory_format=torch.channels_last)
        assert close(folded_for_onednn(network, torch.float32)(last, mask).background, expected)
    checkpoint.save(tmp_path / "x.safetensors", network)
    loaded = checkpoint.load(tmp_path / "x.safetensors")
    assert torch.equal(loaded.network(image, mask).background, expected)
    with torch.enable_grad():
        out = network.train()(image.repeat(2, 1, 1, 1), mask.repeat(2, 1, 1, 1))
        (out.background.square().mean() + out.foreground.square().mean()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_weights_of_timm_from_a_local_file(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    source = timm.create_model("mobilenetv3_small_050").state_dict()
    save_file(source, tmp_path / "w.safetensors")
    network = zoo.build("fast-timm:mobilenetv3_small_050", pretrained=tmp_path / "w.safetensors")
    assert torch.equal(network.early.to_stride_4[0].weight, source["conv_stem.weight"])
    assert network.reports[0].missing == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"timm has no model resnet81 \(did you mean resnet"),
        ("hf-hub:timm/resnet18", "timm has no model hf-hub"),
        ("/etc/passwd", "timm has no model"),
        ("vit_tiny_patch16_224", "no features at strides 4, 8, 16 and 32"),
        ("hrnet_w18_small", "no sequence of parts"),
    ],
)
def test_names_that_timm_does_not_have_or_that_cannot_be_cut(name, message):
    pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(OptionError, match=message):
        zoo.build(f"fast-timm:{name}")


def test_without_timm_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UnavailableError, match=r"fast-timm:resnet18 needs timm: pip install 'sfi_ros\[timm\]'"):
        zoo.build("fast-timm:resnet18")
    network = zoo.build("fast-mobilenetv2")
    network.name = "fast-timm:resnet18"
    checkpoint.save(tmp_path / "x.safetensors", network)
    with pytest.raises(UnavailableError, match=r"pip install 'sfi_ros\[timm\]'"):
        checkpoint.load(tmp_path / "x.safetensors")
