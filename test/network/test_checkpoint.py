"""Checkpoints: a file alone rebuilds its network; wrong files are named; released ones import exactly."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REFERENCE
from safetensors.torch import load_file, save_file

from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.checkpoint import CheckpointError
from sfi_ros.network.released import import_released

SMALL = "fast-mobilenetv2"
RELEASED = ("paper-resnet18", "paper-resnet18-shared", "paper-resnet50", "paper-resnet50-shared")


def some_network(**options):
    torch.manual_seed(0)
    return zoo.build(SMALL, **options).eval()


def image() -> torch.Tensor:
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(5))


def test_round_trip(tmp_path):
    network = some_network(mpi_position="block4", foreground_classes=3)
    path = tmp_path / "deep" / "a.safetensors"
    written = checkpoint.save(
        path,
        network,
        input_height=192,
        training_data="none",
        scores={"all_region_miou": 0.25},
        extra={"config": {"steps": 3}},
    )
    loaded = checkpoint.load(path)
    assert loaded.metadata == written == checkpoint.read_metadata(path)
    assert loaded.metadata.scores == {"all_region_miou": 0.25}
    assert loaded.metadata.extra == {"config": {"steps": 3}}
    assert loaded.network.options == network.options
    assert not loaded.network.training
    with torch.no_grad():
        assert torch.equal(loaded.network(image()).background, network(image()).background)
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]
    assert path.stat().st_mode & 0o444 == 0o444


def test_half_precision_storage_halves_the_file(tmp_path):
    network = some_network()
    checkpoint.save(tmp_path / "full.safetensors", network)
    checkpoint.save(tmp_path / "half.safetensors", network, dtype=torch.float16)
    full, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.55 * full
    loaded = checkpoint.load(tmp_path / "half.safetensors").network
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def saved(tmp_path: Path, **changes) -> Path:
    """A checkpoint with its metadata (as JSON) or tensors changed."""
    path = tmp_path / "changed.safetensors"
    metadata = checkpoint.save(path, some_network())
    values = {**{k: getattr(metadata, k) for k in metadata.__dataclass_fields__}, **changes.get("metadata", {})}
    tensors = load_file(path)
    tensors.update(changes.get("tensors", {}))
    for name in changes.get("without", ()):
        del tensors[name]
    save_file(tensors, path, metadata={"sfi_ros": json.dumps(values)})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": {"format": 99}}, "format 99.*upgrade"),
        ({"metadata": {"name": "slow-resnet"}}, "cannot be built: unknown network 'slow-resnet'"),
        ({"metadata": {"options": {"fill": "magic"}}}, "cannot be built: fill must be one of"),
        ({"metadata": {"background_classes": ["road", "grass", "other"]}}, "trained for the classes road, grass"),
        ({"metadata": {"mean": [0.5, 0.5, 0.5]}}, "normalised with"),
        ({"without": ["decoder.classifier.bias"]}, "lacks decoder.classifier.bias"),
        ({"tensors": {"decoder.classifier.bias": torch.zeros(7)}}, r"decoder.classifier.bias.*\(7,\).*\(3,\)"),
        ({"tensors": {"surplus": torch.zeros(1)}}, "holds surplus"),
        ({"tensors": {"decoder.classifier.bias": torch.tensor([0.0, math.nan, 0.0])}}, "not finite"),
    ],
)
def test_damaged_content_is_named(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(saved(tmp_path, **changes))


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="do not exist"):
        checkpoint.load(tmp_path / "absent.safetensors")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"not a checkpoint at all")
    with pytest.raises(CheckpointError, match=r"garbage.safetensors is not a readable .safetensors file"):
        checkpoint.load(garbage)
    bare = tmp_path / "bare.safetensors"
    save_file({"x": torch.zeros(1)}, bare)
    with pytest.raises(CheckpointError, match="does not say which network"):
        checkpoint.load(bare)
    whole = tmp_path / "whole.safetensors"
    checkpoint.save(whole, some_network())
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="truncated"):
        checkpoint.load(truncated)


def test_save_refuses_what_could_not_be_loaded(tmp_path):
    network = some_network()
    with pytest.raises(ValueError, match=r"ends in .safetensors"):
        checkpoint.save(tmp_path / "a.pth", network)
    with pytest.raises(ValueError, match="is not JSON"):
        checkpoint.save(tmp_path / "a.safetensors", network, extra={"path": Path("x")})
    network.decoder.classifier.bias.data[0] = 1e6  # beyond float16
    with pytest.raises(ValueError, match=r"decoder.classifier.bias is not finite as torch.float16"):
        checkpoint.save(tmp_path / "a.safetensors", network, dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


# --- released checkpoints ---


def released_state(name: str) -> dict[str, torch.Tensor]:
    """A state dict with the released names and shapes, filled by the rule of test/data/reference/README.md."""
    keys = json.loads((REFERENCE / f"{name}.keys.json").read_text())
    state = {}
    for key, shape in keys.items() if isinstance(keys, dict) else keys:
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.long)
        elif len(shape) >= 2:
            state[key] = torch.randn(shape, generator=generator) * math.sqrt(2 / math.prod(shape[1:]))
        elif key.endswith("running_var"):
            state[key] = 0.5 + torch.rand(shape, generator=generator)
        elif key.endswith(("running_mean", "bias")):
            state[key] = 0.1 * torch.randn(shape, generator=generator)
        else:
            state[key] = 0.5 + torch.rand(shape, generator=generator)
    return state


@pytest.mark.parametrize("name", RELEASED)
def test_golden_outputs_of_the_released_networks(name):
    network = import_released(released_state(name))
    assert network.name == name
    golden = np.load(REFERENCE / "released_outputs.npz")
    images = torch.randn(2, 3, 128, 256, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        outputs = [network(one) for one in images.split(1)]
    logits = torch.cat([out.background for out in outputs])[:, :, ::4, ::4].numpy()
    foreground = torch.cat([out.foreground for out in outputs]).sigmoid()[:, :, ::4, ::4].numpy()
    expected = golden[f"{name}/logits"]
    assert np.abs(logits - expected).max() / np.abs(expected).max() < 1e-4
    # Logits of hundreds pass a sigmoid: rounding that is nothing to them moves a probability near one half.
    assert np.abs(foreground - golden[f"{name}/foreground"]).max() < 1e-3


def test_released_file_round_trip(tmp_path):
    state = {f"module.{key}": tensor for key, tensor in released_state("paper-resnet18-shared").items()}
    file = tmp_path / "released.pth.tar"
    torch.save({"epoch": 3, "state_dict_G": state, "optimizer_G": {}, "scheduler_G": {}}, file)
    network = import_released(file)
    assert (network.name, network.options.boundary) == ("paper-resnet18-shared", "raw")
    checkpoint.save(tmp_path / "ours.safetensors", network)
    again = checkpoint.load(tmp_path / "ours.safetensors").network
    with torch.no_grad():
        assert torch.equal(again(image()).background, network(image()).background)


def test_wrong_released_files_are_named(tmp_path):
    state = released_state("paper-resnet18-shared")
    missing = {key: tensor for key, tensor in state.items() if key != "psp.stages.2.1.weight"}
    with pytest.raises(CheckpointError, match=r"lacks psp.stages.2.1.weight"):
        import_released(missing)
    with pytest.raises(CheckpointError, match=r"feats.layer3.0.conv1.weight .* has shape \(1, 2\)"):
        import_released({**state, "feats.layer3.0.conv1.weight": torch.zeros(1, 2)})
    with pytest.raises(CheckpointError, match=r"holds discriminator.weight"):
        import_released({**state, "discriminator.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"feats.layer1.0.conv1.weight .* released paper-resnet50-shared has"):
        import_released(state, name="paper-resnet50-shared")
    with pytest.raises(CheckpointError, match="is no released network"):
        import_released({"encoder.weight": torch.zeros(1)})
    plain = tmp_path / "plain.pth"
    torch.save({"model": {}}, plain)
    with pytest.raises(CheckpointError, match="no state_dict_G but model"):
        import_released(plain)
    with pytest.raises(FileNotFoundError, match="do not exist"):
        import_released(tmp_path / "absent.pth.tar")
    (tmp_path / "text.pth.tar").write_text("hello")
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_released(tmp_path / "text.pth.tar")


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_released_files_execute_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict_G": Harmful()}, "evil.pth.tar")
    with pytest.raises(CheckpointError, match="plain tensors"):
        import_released("evil.pth.tar")
    assert not Path("executed").exists()
