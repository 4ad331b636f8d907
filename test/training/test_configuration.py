"""The configuration: typed keys, close names for wrong ones, one clear error for a file that is no configuration."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from pathlib import Path

import pytest
from conftest import ROOT
from test_train import arguments, configured

from training import train
from training.configuration import (
    Configuration,
    ConfigurationError,
    SourceConfig,
    as_dictionary,
    fingerprint,
    from_dictionary,
    load,
)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.step=3", r"unknown key 'schedule\.step': did you mean 'schedule\.steps'\?"),
        ("losses.hidden_wait=2", r"did you mean 'losses\.hidden_weight'"),
        ("optimiser.name=adam", r"did you mean 'optimizer'"),
        ("data.train.street.drive=3", r"did you mean 'data\.train\.street\.drives'"),
        ("optimizer.name=sgd", r"optimizer\.name must be one of adamw?, adamw?, got 'sgd'"),
        ("data.batch_size=four", r"data\.batch_size must be a whole number, got 'four'"),
        ("run.half=1", r"run\.half must be true or false, got 1"),
        ("fake_masks.sizes=[0.1]", r"fake_masks\.sizes must hold 2 values"),
        ("schedule.epochs=3", r"exactly one of schedule\.steps, schedule\.epochs and schedule\.minutes"),
        ("schedule.validate_every=4", r"must end with a validation.*schedule\.steps to 4"),
        ("data.train.street.dataset=kitti", r"data\.train\.street has no folder: set data\.train\.street\.root"),
        ("data.train=null", r"data\.train names no source"),
        ("network.name=fast-mobilenet2", r"did you mean fast-mobilenetv2"),
        ("network.fill=blur", r"fill must be one of mpi, zero"),
        ("network.pretrained=/nowhere.safetensors", r"pretrained weights /nowhere\.safetensors do not exist"),
        ("data.cache=disk", r"data\.cache must be one of none, ram, got 'disk'"),
        ("data.cache_gigabytes=0", r"data\.cache_gigabytes must be positive; data\.cache=none keeps nothing"),
        ("data.augment_on=gpu", r"data\.augment_on must be one of cpu, device"),
        ("losses.doubtful_border=-1", r"losses\.doubtful_border is in pixels, 0 leaves nothing out; got -1"),
        ("losses.border_weight=-1", r"losses\.border_weight is a factor, 1 changes nothing; got -1"),
        ("losses.foreground_hard_fraction=0", r"losses\.foreground_hard_fraction is a share above 0, .*; got 0"),
        ("losses.foreground_hard_fraction=1.5", r"losses\.foreground_hard_fraction is a share above 0, .*; got 1\.5"),
        ("run.log_every=0", r"run\.log_every must be at least 1"),
        ("run.loggers=[wandb]", r"run\.loggers must be one of csv, tensorboard, got 'wandb'"),
        ("schedule.minutes=3", r"exactly one of schedule\.steps, schedule\.epochs and schedule\.minutes"),
        ("schedule.validate_every=0", r"schedule\.validate_every must be positive, got 0"),
        ("optimizer.head_rate=.nan", r"optimizer\.head_rate must be a number, got nan"),
        ("optimizer.head_rate=1e999", r"optimizer\.head_rate must be a number, got '1e999'"),
        ("data.train={a: {dataset: synthetic}, a: {dataset: kitti}}", r"a stands there twice .*line 1, column"),
        ("output=/dev/null/run", r"/dev/null/run cannot be written: Not a directory"),
        ("seed", r"must read section\.key=value"),
        ("seed=[", r"override 'seed=\[': the value is not valid YAML"),
    ],
)
def test_errors_of_the_configuration_name_the_key_and_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture, override: str, message: str
) -> None:
    assert train.main([*arguments(tmp_path / "run"), override]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_kitti_dev_is_never_trained_on(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="for testing only"):
        configured(tmp_path / "run", "data.train.street.dataset=kitti", "data.roots.kitti=../shared/data/kitti_dev")


def test_overrides_are_typed_and_null_removes(tmp_path: Path) -> None:
    configuration = configured(
        tmp_path / "run",
        "optimizer.encoder_rate=1e-4",
        "augmentation.crop=null",
        "data.train.second={dataset: synthetic, share: 2}",
        "data.train.street=null",
        "losses.class_weights=[1, 2, 3]",
    )
    assert configuration.optimizer.encoder_rate == 1e-4 and configuration.augmentation.crop is None
    assert list(configuration.data.train) == ["second"] and configuration.data.train["second"].share == 2.0
    assert configuration.losses.class_weights == (1.0, 2.0, 3.0)
    assert from_dictionary(json.loads(json.dumps(as_dictionary(configuration)))) == configuration


def test_the_fingerprint_changes_with_everything_but_the_place(tmp_path: Path) -> None:
    here, there = configured(tmp_path / "here"), configured(tmp_path / "there")
    assert fingerprint(here) == fingerprint(there) != fingerprint(configured(tmp_path / "here", "seed=1"))


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "config/training").glob("*.yaml")))
def test_shipped_configurations_are_understood(name: str) -> None:
    configuration = load(ROOT / "config/training" / name)
    assert configuration.output.startswith("out/")


def test_help_shows_examples(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = capsys.readouterr().out
    for expected in ("--config", "--resume", "--check", "torchrun", "exit status", "model.safetensors"):
        assert expected in text


def keys(section: type, where: str = "") -> list[str]:
    hints, found = typing.get_type_hints(section), []
    for field in dataclasses.fields(section):
        nested = dataclasses.is_dataclass(hints[field.name])
        found += keys(hints[field.name], f"{where}{field.name}.") if nested else [f"{where}{field.name}"]
    return found


def test_help_lists_every_key_with_type_default_and_one_line(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = capsys.readouterr().out
    for key in [*keys(Configuration), *keys(SourceConfig, "data.train.NAME.")]:
        assert re.search(rf"^  {re.escape(key)}: \S.* = .+\n {{8}}\S.+$", text, re.MULTILINE), key
    assert "  optimizer.name: adam|adamw = adamw\n" in text
    assert "  augmentation.crop: [whole number, whole number] or null = null\n        height and width" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"run:\n  training_data: Stra\xdfe\n", r"is not UTF-8 text .*: save it as UTF-8"),
        ("seed: 0".encode("utf-16"), r"is not UTF-8 text"),
        (b"seed: \x00", r"is not valid YAML"),
        (b"seed: [", r"is not valid YAML"),
        (b"schedule: {steps: 5}\nseed: 1\nschedule: {steps: 7}\n", r"schedule stands there twice .*line 3, column 1"),
        (b"seed: 2024-13-45", r"is not valid YAML|must be a whole number"),
        (b"[" * 2000, r"is not valid YAML"),
        (b"- a\n- b\n", r"must hold a mapping of sections, found list"),
        (b"\x89PNG\r\n\x1a\n", r"is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_configuration_gives_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture, content: bytes, message: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    assert train.main(["--config", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}") and re.search(message, error) and "Traceback" not in error


def test_a_folder_is_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train.main(["--config", str(tmp_path)]) == 2
    assert f"cannot read the configuration {tmp_path}" in capsys.readouterr().err
