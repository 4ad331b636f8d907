"""Frozen teachers: their opinion is what they say in evaluation, and a run that learns from them continues exactly."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from test_train import assert_same_run, configured, state

from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.outputs import to_probabilities
from sfi_ros.network.preprocessing import normalize
from training import train
from training.configuration import ConfigurationError, LossOptions
from training.data.stream import TrainingSet
from training.learning.devices import build_fabric
from training.learning.signals import Interrupted
from training.learning.teacher import Teacher


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The weights that ship, and a network that knows nothing and has no part for kinds of objects."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teachers") / "untrained.safetensors"
    checkpoint.save(path, zoo.build("fast-resnet18"))
    return str(ROOT / "sfi_ros/weights/default.safetensors"), str(path)


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_opinion_is_the_mean_of_what_the_networks_say_in_evaluation(
    teachers: tuple[str, ...], tmp_path: Path, mirrored: bool
) -> None:
    fabric = build_fabric(configured(tmp_path / "run").run)
    teacher = Teacher(fabric, LossOptions(teacher=teachers, teacher_mirrored=mirrored))
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    said = []
    with torch.no_grad():
        for network in (checkpoint.load(path).network for path in teachers):
            said.append(to_probabilities(network(normalize(images)))[:, :4])
            if mirrored:
                said.append(to_probabilities(network(normalize(images.flip(-1))))[:, :4].flip(-1))
    for _ in range(2):  # nothing in it moves
        opinion = teacher(images)
        torch.testing.assert_close(opinion, torch.stack(said).mean(0), rtol=1e-4, atol=1e-5)
    assert opinion.shape == (2, 4, 32, 64) and not opinion.requires_grad
    assert (said[0] - said[1]).abs().max() > 0.01


def test_a_run_with_teachers_continues_exactly_and_they_are_not_saved(
    teachers: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("schedule.steps=2", "schedule.validate_every=2", "run.pictures=0")
    taught = (*short, f"losses.teacher=[{', '.join(teachers)}]", "data.accumulate=2")
    train.run(configured(tmp_path / "whole", *taught))

    def stopped(self: Any, number: int, original: Any = TrainingSet.__getitem__) -> Any:
        if number == 3:
            signal.raise_signal(signal.SIGTERM)
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSet, "__getitem__", stopped)
        with pytest.raises(Interrupted):
            train.run(configured(tmp_path / "stopped", *taught))
    assert state(tmp_path / "stopped/last.ckpt")["step"] == 1
    train.run(configured(tmp_path / "stopped", *taught), resume="last")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")

    train.run(configured(tmp_path / "alone", *short, "data.accumulate=2"))
    alone, whole = (state(tmp_path / name / "last.ckpt") for name in ("alone", "whole"))
    assert alone.keys() == whole.keys() and alone["network"].keys() == whole["network"].keys()
    assert not torch.equal(alone["network"]["decoder.classifier.weight"], whole["network"]["decoder.classifier.weight"])
    train.run(configured(tmp_path / "unheard", *taught, "losses.teacher_weight=0"))
    assert_same_run(tmp_path / "alone", tmp_path / "unheard")


def test_a_teacher_that_cannot_teach_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = tmp_path / "given.safetensors"
    checkpoint.save(given, zoo.build("fast-mobilenetv2", mask_source="given"))
    with pytest.raises(ConfigurationError, match=rf"losses\.teacher: {given} wants to be given the mask"):
        train.run(configured(tmp_path / "run", f"losses.teacher=[{given}]"))
    configured(tmp_path / "run")
    command = ["--config", str(tmp_path / "run.yaml"), "losses.teacher=[/nowhere.safetensors]"]
    assert train.main(command) == 2
    assert "/nowhere.safetensors" in capsys.readouterr().err
