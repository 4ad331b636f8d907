"""Every network of the zoo: shapes, gradients, options, sizes, initialisation, cost, export."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from conftest import shared
from safetensors.torch import save_file
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import mobilenet_v2, resnet18

from sfi_ros.network import zoo
from sfi_ros.network.decoders import upsample
from sfi_ros.network.image_format import IMAGENET_MEAN, IMAGENET_STD, network_size
from sfi_ros.network.options import VIEW_COUNTS
from sfi_ros.network.outputs import to_probabilities
from sfi_ros.network.preprocessing import (
    normalize,
    pad_to_multiple,
    resize_images,
)
from sfi_ros.network.views import VIEWS

SMALL = "fast-mobilenetv2"


def images(n: int = 2, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", zoo.NAMES)
def test_forward_and_backward(name):
    torch.manual_seed(0)
    network = zoo.build(name)
    mask = torch.zeros(2, 1, 64, 96)  # an untrained network might take everything for foreground
    mask[..., 20:40, 30:60] = 1
    out = network(images(), mask)
    assert out.background.shape == (2, 3, 64, 96)
    assert out.foreground.shape == (2, 1, 64, 96)
    (out.background.square().mean() + out.foreground.square().mean()).backward()
    without = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", zoo.NAMES)
@pytest.mark.parametrize("size", [(37, 61), (8, 8), (70, 33)])
def test_odd_sizes_are_padded_inside(name, size):
    network = zoo.build(name).eval()
    with torch.no_grad():
        out = network(images(1, *size))
    assert out.background.shape == (1, 3, *size)
    assert out.foreground.shape == (1, 1, *size)
    assert torch.isfinite(out.background).all()


@pytest.mark.parametrize("position", ["image", "block2", "block4", "logits"])
@pytest.mark.parametrize("fill", ["mpi", "zero"])
@pytest.mark.parametrize("source", ["predicted", "given"])
@pytest.mark.parametrize("classes", [1, 3])
def test_every_combination_of_options(position, fill, source, classes):
    torch.manual_seed(0)
    network = zoo.build(SMALL, mpi_position=position, fill=fill, mask_source=source, foreground_classes=classes).eval()
    mask = torch.zeros(2, 1, 64, 96)
    mask[..., 16:48, 24:72] = 1
    with torch.no_grad():
        out = network(images(), mask if source == "given" else None)
        other = network(images(), 1 - mask)
    assert out.foreground.shape == (2, 1, 64, 96)
    assert out.kinds is None if classes == 1 else out.kinds.shape == (2, 3, 64, 96)
    assert out.background.shape == (2, 3, 64, 96)
    assert not torch.equal(out.background, other.background)  # the mask decides what is seen


@pytest.mark.parametrize("name", ["paper-resnet18", "paper-resnet18-shared", "fast-resnet18", SMALL])
@pytest.mark.parametrize("fill", ["mpi", "zero"])
def test_what_stands_under_the_mask_cannot_reach_the_background(name, fill):
    """The very meaning of inpainting. Features beside a mask see a little beyond its border, so look at its middle."""
    torch.manual_seed(0)
    network = zoo.build(name, fill=fill).eval()
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 32:224, 32:224] = 1
    image = images(1, 256, 256).requires_grad_()
    network(image, mask).background.square().mean().backward()
    assert image.grad[..., :16, :].any()
    assert not image.grad[..., 120:136, 120:136].any()


def test_all_foreground_gives_the_same_background_for_any_image():
    network = zoo.build(SMALL).eval()
    with torch.no_grad():
        first, second = (network(torch.randn(1, 3, 64, 96), torch.ones(1, 1, 64, 96)).background for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "name", [SMALL, "fast-resnet18", "paper-resnet18", "paper-resnet18-shared", "two-stage-resnet18"]
)
def test_kinds_divide_the_foreground_and_change_neither_it_nor_the_background(name):
    """A network that tells kinds is one that does not, and a part beside: what is known stays, bit by bit."""
    torch.manual_seed(0)
    binary = zoo.build(name).eval()
    network = zoo.build(name, foreground_classes=3).eval()
    kinds = [key for key in network.state_dict() if key.startswith("foreground.kinds.")]
    assert set(network.state_dict()) - set(binary.state_dict()) == set(kinds) and kinds
    network.load_state_dict(binary.state_dict(), strict=False)
    with torch.no_grad():
        out, expected = network(images()), binary(images())
    assert torch.equal(out.foreground, expected.foreground) and torch.equal(out.background, expected.background)
    shares = to_probabilities(out)
    assert torch.equal(shares[:, :4], to_probabilities(expected)) and shares.shape[1] == 7
    of_kinds = shares[:, :1] * shares[:, 4:]
    torch.testing.assert_close(of_kinds.sum(1, keepdim=True), shares[:, :1])


@pytest.mark.parametrize(("name", "size"), [(SMALL, (64, 96)), (SMALL, (37, 61)), ("two-stage-resnet18", (24, 36))])
@pytest.mark.parametrize("views", VIEW_COUNTS)
def test_views_are_averaged(name, size, views):
    """First their foreground, then the background behind what is foreground in the mean."""
    torch.manual_seed(0)
    one = zoo.build(name, foreground_classes=3).eval()
    several = zoo.build(name, foreground_classes=3, views=views).eval()
    image = images(2, *size)
    if name == SMALL:  # half of it is foreground, by clear margins, as in the other network by itself
        with torch.no_grad():
            one.foreground.classifier.weight *= 1000
            one.foreground.classifier.bias -= one(image).foreground.median()
    several.load_state_dict(one.state_dict())
    smaller = functional.interpolate(image, [math.ceil(2 * side / 3) for side in size], mode="bilinear")
    looked_at = [image, image.flip(-1), smaller, smaller.flip(-1)][:views]

    def mean(seen):
        back = [logits.flip(-1) if number % 2 else logits for number, logits in enumerate(seen)]
        return sum(functional.interpolate(logits, size, mode="bilinear") for logits in back) / views

    with torch.no_grad():
        out, alone = several(image), [one(each) for each in looked_at]
        foreground = mean([each.foreground for each in alone])
        mask = (foreground > 0).float()
        assert mask.any() and not mask.all()
        masks = [functional.interpolate(mask, each.shape[-2:], mode="nearest-exact") for each in looked_at]
        masks = [each.flip(-1) if number % 2 else each for number, each in enumerate(masks)]
        background = mean([one(*pair).background for pair in zip(looked_at, masks, strict=True)])
    torch.testing.assert_close(out.foreground, foreground, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out.kinds, mean([each.kinds for each in alone]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out.background, background, rtol=1e-4, atol=1e-4)
    assert VIEWS.keys() == set(VIEW_COUNTS) and len(VIEWS[views]) == views


@pytest.mark.parametrize("name", [SMALL, "two-stage-resnet18"])
def test_a_given_mask_is_that_of_every_view(name):
    """In bfloat16, in which not every part computes: the background is that of the mirror image, mirrored."""
    torch.manual_seed(0)
    network = zoo.build(name, views=2, mask_source="given").eval().bfloat16()
    image, mask = images(1, 48, 64).bfloat16(), torch.zeros(1, 1, 48, 64)
    mask[..., 10:30, 5:20] = 1
    with torch.no_grad():
        out, mirrored = network(image, mask), network(image.flip(-1), mask.flip(-1))
        elsewhere = network(image, mask.flip(-1))
    torch.testing.assert_close(mirrored.background.flip(-1), out.background, rtol=0, atol=1e-5)
    assert name == SMALL or (elsewhere.background - out.background).abs().max() > 1e-4


def test_fake_foreground_is_united_with_the_mask():
    network = zoo.build(SMALL).eval()
    given, fake = torch.zeros(2, 2, 1, 64, 96).unbind()
    given[..., :20, :20] = 1
    fake[..., 30:50, 40:80] = 1
    with torch.no_grad():
        united = network(images(), torch.maximum(given, fake)).background
        assert torch.equal(network(images(), given, fake).background, united)


def test_foreground_logits_do_not_depend_on_the_mask():
    network = zoo.build("fast-resnet18").eval()
    with torch.no_grad():
        assert torch.equal(network(images()).foreground, network(images(), torch.ones(2, 1, 64, 96)).foreground)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(1, 1, 32, 32),), "images must be"),
        ((torch.zeros(1, 3, 32, 32, dtype=torch.uint8),), "images must be"),
        ((torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 16, 16)), r"given_foreground must be \(1, 1, 32, 32\)"),
        ((torch.zeros(1, 3, 32, 32), None, torch.zeros(2, 1, 32, 32)), "fake_foreground must be"),
    ],
)
def test_wrong_inputs_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(SMALL)(*arguments)


def test_given_mask_may_not_be_left_out():
    with pytest.raises(ValueError, match="mask_source='given'"):
        zoo.build(SMALL, mask_source="given")(images())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fast-mobilenet", {}, "did you mean fast-mobilenetv2"),
        (SMALL, {"fill": "telea"}, "fill must be one of mpi, zero; got 'telea'"),
        (SMALL, {"foreground_classes": 2}, r"must be 1, or 3 \(person, two-wheeler, vehicle\); got 2"),
        (SMALL, {"mpi_positon": "image"}, "unknown network options mpi_positon"),
        (SMALL, {"views": 3}, "views must be 1, 2 or 4; got 3"),
        (SMALL, {"views": True}, "views must be 1, 2 or 4; got True"),
        ("two-stage-resnet18", {"fill": "mpi"}, "blacks out the image"),
    ],
)
def test_wrong_names_and_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(name, **options)


@pytest.mark.parametrize(
    ("name", "gflop", "parameters"),
    [
        ("paper-resnet18", (331, 332), (22.5, 22.51)),
        ("paper-resnet18-shared", (167, 168), (21.8, 21.9)),
        ("paper-resnet50", (415, 416), (58.4, 58.5)),
        ("fast-resnet18", (0, 55), (0, 30)),
        (SMALL, (0, 6), (0, 5)),
        ("fast-efficientnet-lite0", (0, 6), (0, 5)),
    ],
)
def test_cost_at_256_by_512(name, gflop, parameters):
    network = zoo.build(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images(1, 256, 512))
    assert gflop[0] <= counter.get_total_flops() / 1e9 <= gflop[1]
    assert parameters[0] <= sum(p.numel() for p in network.parameters()) / 1e6 <= parameters[1]


def test_initialisation_from_a_local_file(tmp_path):
    torch.manual_seed(0)
    source = resnet18().state_dict()
    save_file(source, tmp_path / "resnet18.safetensors")
    network = zoo.build("paper-resnet18", pretrained=tmp_path / "resnet18.safetensors")
    assert torch.equal(network.late.layer3[0].conv1.weight, source["layer3.0.conv1.weight"])
    assert torch.equal(network.foreground.encoder.layer2[1].conv2.weight, source["layer2.1.conv2.weight"])
    main, foreground = network.reports
    assert sorted(main.unused) == ["fc.bias", "fc.weight"]
    assert main.missing == main.mismatched == foreground.missing == ()
    assert "2 unused (fc." in str(main)


def test_initialisation_reports_what_is_missing(tmp_path):
    source = mobilenet_v2().state_dict()
    del source["features.0.0.weight"]
    source["features.1.conv.1.weight"] = torch.zeros(3, 3)
    save_file(source, tmp_path / "damaged.safetensors")
    (report,) = zoo.build(SMALL, pretrained=tmp_path / "damaged.safetensors").reports
    assert report.missing == ("features.0.0.weight",)
    assert report.mismatched == ("features.1.conv.1.weight",)


def test_initialisation_from_something_else_is_an_error(tmp_path):
    save_file({"bert.weight": torch.zeros(2, 2)}, tmp_path / "bert.safetensors")
    with pytest.raises(ValueError, match="no convolution that fits"):
        zoo.build(SMALL, pretrained=tmp_path / "bert.safetensors")
    with pytest.raises(FileNotFoundError, match="do not exist"):
        zoo.build(SMALL, pretrained=tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("name", "file", "tensors"),
    [
        (SMALL, "mobilenet_v2_imagenet_features.safetensors", 312),
        ("fast-resnet50", "resnet50_v1_imagenet_fp16.safetensors", 318),
        ("fast-efficientnet-lite0", "efficientnet_lite0_imagenet_fp16.safetensors", 270),
    ],
)
def test_initialisation_from_the_shared_weights(name, file, tensors):
    (report,) = zoo.build(name, pretrained=shared(f"weights/{file}")).reports
    assert len(report.loaded) == tensors
    assert report.missing == report.mismatched == ()
    assert all(key.startswith(("blocks.6", "conv_head", "bn2")) for key in report.unused)  # behind the last cut


def test_encoder_parameters_are_those_that_come_pretrained():
    network = zoo.build(SMALL)
    encoder = {id(parameter) for parameter in network.encoder_parameters()}
    names = {
        name.split(".")[0] + "." + name.split(".")[1] for name, p in network.named_parameters() if id(p) in encoder
    }
    assert {name.split(".")[0] for name in names} == {"early", "late", "foreground"}
    assert all(not name.startswith("foreground") or name == "foreground.late" for name in names)


@pytest.mark.parametrize("name", [SMALL, "paper-resnet18-shared"])
def test_exports_whole(name):
    torch.manual_seed(0)
    network = zoo.build(name).eval()
    image = images(1, 64, 96)
    exported = torch.export.export(network, (image,)).module()
    for seed in range(3):
        other = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            mine, theirs = network(other), exported(other)
        torch.testing.assert_close(theirs.background, mine.background, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(theirs.foreground, mine.foreground, rtol=1e-4, atol=1e-4)


def test_compiles_without_graph_breaks():
    network = zoo.build(SMALL).eval()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()).background, network(images()).background, rtol=1e-4, atol=1e-4)


# --- preprocessing ---


def test_normalize_is_torchvisions():
    image = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    torch.testing.assert_close(normalize(image), (image / 255 - mean) / std)


@pytest.mark.parametrize(
    ("size", "expected"), [((1024, 2048), (256, 512)), ((375, 1242), (256, 848)), ((9, 3), (256, 85))]
)
def test_network_size_keeps_the_aspect_ratio(size, expected):
    assert network_size(*size, 256) == expected


def test_network_size_of_nothing():
    with pytest.raises(ValueError, match="positive"):
        network_size(0, 10, 256)


def test_resize_averages_what_it_covers():
    image = torch.zeros(1, 3, 64, 64)
    image[..., ::2] = 200.0  # stripes that plain bilinear sampling would alias to 0 or 200
    assert (resize_images(image, (16, 16))[..., 2:-2] - 100).abs().max() < 1
    assert resize_images(image.to(torch.uint8), (16, 16)).dtype == torch.uint8


def test_padding_repeats_the_border():
    padded = pad_to_multiple(torch.arange(6.0).view(1, 1, 2, 3), 4)
    assert padded.shape == (1, 1, 4, 4)
    assert padded[0, 0, -1].tolist() == [3, 4, 5, 5]


def test_padding_of_masks_and_images_agrees():
    for height, width in itertools.product((31, 32, 33), repeat=2):
        assert pad_to_multiple(torch.zeros(1, 1, height, width), 32).shape[-2] % 32 == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_of_upsampling_are_summed_in_float32(dtype):
    cell = torch.ones(1, 2, 1, 1, dtype=dtype, requires_grad=True)
    grown = upsample(cell, (32, 64))
    assert grown.dtype == dtype
    grown.backward(torch.ones_like(grown))
    assert (cell.grad == 2048).all()  # counting by ones, bfloat16 ends at 256
    assert grown.grad_fn.name() == ("UpsampleBilinear2DBackward0" if dtype == torch.float32 else "ToCopyBackward0")
    assert upsample(cell.detach(), (32, 64)).dtype == dtype  # nothing to sum: nothing is converted
