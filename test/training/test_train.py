"""Training: stopped runs continue exactly, several processes or parts equal one batch, errors say what is wrong."""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
import yaml
from conftest import ROOT, shared
from torch.utils.flop_counter import FlopCounterMode
from torchvision.io import write_jpeg, write_png

from sfi_ros.network import checkpoint, zoo
from training import check_data, evaluate, train
from training.configuration import (
    Configuration,
    ConfigurationError,
    ScheduleConfig,
    as_dictionary,
    from_dictionary,
    load,
)
from training.data.datasets import DatasetError, Synthetic
from training.data.loaders import TrainingData
from training.data.stream import TrainingSet, stack
from training.learning import checkpoints, devices, loop
from training.learning.checkpoints import ScoreLog
from training.learning.devices import build_fabric
from training.learning.health import NonFiniteLoss
from training.learning.losses import losses, supervision
from training.learning.network import TrainedNetwork, build_network
from training.learning.optimizer import MovingAverage, build_optimizer
from training.learning.schedule import Schedule, TimeLimit, rate_factor
from training.learning.signals import Interrupted
from training.learning.validation import SCORE_NAMES

pytestmark = pytest.mark.timeout(900)

TINY: dict[str, Any] = {
    "network": {"name": "fast-mobilenetv2", "input_height": 32},
    "data": {
        "train": {"street": {"dataset": "synthetic", "split": "train", "drives": 2, "frames": 6}},
        "validation": {"street": {"dataset": "synthetic", "split": "val", "drives": 1, "frames": 3}},
        "batch_size": 4,
        "workers": 0,
    },
    "augmentation": {"crop": [32, 64], "scale": [0.8, 1.4], "flip": 0.5, "brightness": 0.3, "noise": 0.2},
    "optimizer": {"ema_decay": 0.9},
    "schedule": {"steps": 6, "validate_every": 3, "warmup_steps": 2},
    "run": {"accelerator": "cpu", "log_every": 1, "checkpoint_every": None, "pictures": 1, "half": False},
}
LIKE_ONE_BATCH = (
    "network.freeze_batch_norm=true",
    "network.dropout=0",
    "network.foreground_classes=3",
    "optimizer.ema_decay=0",
    "run.pictures=0",
)
"""What a step must not depend on: how the batch is divided changes neither of these."""


def configured(folder: Path, *overrides: str) -> Configuration:
    file = folder.with_suffix(".yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(TINY))
    return load(file, [f"output={folder}", *overrides])


def state(file: Path) -> dict[str, Any]:
    return torch.load(file, weights_only=True)


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Equal to the last bit, all the way down."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}[{number}]")
    else:
        assert one == other, where


def assert_same_run(one: Path, other: Path) -> None:
    """Two folders hold the same training, whatever happened on the way."""
    for name in ("last.ckpt", "best.ckpt"):
        first, second = state(one / name), state(other / name)
        for key in ("network", "average", "updates", "optimizer", "step"):
            assert_equal(first[key], second[key], f"{name}: {key}")
    assert ScoreLog(one / "scores.jsonl").read() == ScoreLog(other / "scores.jsonl").read()


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def logged(folder: Path, column: str) -> list[float]:
    file = sorted((folder / "logs" / "csv").glob("version_*/metrics.csv"))[-1]
    with file.open() as rows:
        return [float(row[column]) for row in csv.DictReader(rows) if row.get(column)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train.run(configured(folder))
    return folder


# --- a whole run -----------------------------------------------------------------------------------------------------


def test_a_run_logs_scores_pictures_and_exports_with_scores(finished: Path) -> None:
    rows = ScoreLog(finished / "scores.jsonl").read()
    assert [row["step"] for row in rows] == [3, 6]
    assert {"foreground_region_miou", "all_region_miou", "foreground_mask_iou", "all_region_iou_road"} <= set(
        rows[0]["scores"]["street"]
    )
    assert len(logged(finished, "train/loss")) == 6
    assert len(logged(finished, "val/street/all_region_miou")) == 2
    events = [path.read_bytes() for path in (finished / "logs" / "tensorboard").rglob("events.*")]
    assert any(b"validation/0" in content for content in events), "pictures are in TensorBoard"

    product = checkpoint.load(finished / "model.safetensors")
    best = state(finished / "best.ckpt")
    row = next(row for row in rows if row["step"] == best["step"])
    assert product.metadata.scores == {
        f"street/{name}": value for name, value in row["scores"]["street"].items() if value is not None
    }
    assert product.metadata.extra["step"] == best["step"]
    assert from_dictionary(product.metadata.extra["configuration"]) == load(finished / "config.yaml")
    for name, value in product.network.state_dict().items():
        assert torch.equal(value, best["average"][name]), "the moving average is exported"


def test_the_seed_decides_everything_and_the_cache_nothing(finished: Path, tmp_path: Path) -> None:
    """Six steps go twice through the street, so half of the samples come from memory; workers share it."""
    train.run(configured(tmp_path / "same", "data.cache=ram", "data.cache_gigabytes=0.01", "data.workers=1"))
    assert_same_run(finished, tmp_path / "same")
    train.run(configured(tmp_path / "other", "seed=1", "schedule.steps=1", "schedule.validate_every=1"))
    one, other = state(finished / "last.ckpt"), state(tmp_path / "other" / "last.ckpt")
    assert not torch.equal(one["network"]["decoder.classifier.weight"], other["network"]["decoder.classifier.weight"])


def test_the_printed_command_evaluates_the_product(finished: Path, capsys: pytest.CaptureFixture) -> None:
    command = train._farewell(load(finished / "config.yaml"), finished / "model.safetensors").splitlines()[-1]
    arguments = shlex.split(command)[2:]
    assert evaluate.main([*arguments, "--limit", "2", "--quiet"]) == 0
    assert "synthetic" in capsys.readouterr().out


def test_a_compiled_run_is_the_same_and_its_files_do_not_show_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the backend that generates no code: PyTorch tests the others, and they take a minute."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    folder = tmp_path / "run"
    product = train.run(configured(folder, "run.compile=true", "schedule.steps=1", "schedule.validate_every=1"))
    assert logged(folder, "train/loss") == pytest.approx(logged(finished, "train/loss")[:1], rel=1e-4)
    assert state(folder / "last.ckpt")["network"].keys() == state(finished / "last.ckpt")["network"].keys()
    assert checkpoint.load(product).metadata.extra["configuration"]["run"]["compile"] is True


def test_training_goes_on_from_a_product_checkpoint(finished: Path, tmp_path: Path) -> None:
    product = finished / "model.safetensors"
    network = build_network(configured(tmp_path / "run", f"network.start_from={product}").network)
    assert_equal(dict(network.state_dict()), dict(checkpoint.load(product).network.state_dict()))
    with pytest.raises(ValueError, match=r"holds a fast-mobilenetv2, not a fast-resnet18: set network\.name="):
        build_network(
            configured(tmp_path / "run", f"network.start_from={product}", "network.name=fast-resnet18").network
        )


@pytest.mark.parametrize("only_kinds", [False, True])
def test_a_step_sees_one_view(only_kinds: bool) -> None:
    counts = []
    for views in (1, 4):
        network = zoo.build("fast-mobilenetv2", foreground_classes=3, views=views)
        model = TrainedNetwork(network, only_kinds=only_kinds)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(2, 3, 32, 64, dtype=torch.uint8))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


def test_weights_learn_kinds_of_objects_and_keep_all_else_to_the_last_bit(finished: Path, tmp_path: Path) -> None:
    """From weights that tell no kinds, and on from those that do."""
    product = finished / "model.safetensors"
    before = checkpoint.load(product).network
    for number in range(2):
        overrides = (f"network.start_from={product}", "network.foreground_classes=3", "network.train_only=kinds")
        short = ("schedule.steps=2", "schedule.validate_every=2", "run.monitor=foreground_classes_miou")
        run = configured(tmp_path / str(number), *overrides, *short, "fake_masks.count=0")
        made_by = checkpoint.read_metadata(product).extra
        torch.manual_seed(run.seed)
        start = build_network(run.network)
        model = TrainedNetwork(build_network(run.network), only_kinds=True)
        output = model(torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8))
        assert output.kinds.requires_grad and not (output.background.requires_grad or output.foreground.requires_grad)
        product = train.run(run)
        loaded = checkpoint.load(product)
        assert loaded.metadata.options["foreground_classes"] == 3
        assert loaded.metadata.extra["start_from"] == made_by
        assert 0 <= loaded.metadata.scores["street/foreground_classes_miou"] <= 1
        after, learned = loaded.network.state_dict(), []
        for name, tensor in start.state_dict().items():
            if name.startswith("foreground.kinds."):
                learned.append(not torch.equal(after[name], tensor))
            else:
                assert torch.equal(after[name], tensor) and torch.equal(before.state_dict()[name], tensor), name
        assert len(learned) > 10 and all(learned)
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = before(image), loaded.network(image)
    assert torch.equal(one.foreground, other.foreground) and torch.equal(one.background, other.background)
    without = configured(tmp_path / "run", f"network.start_from={product}", "network.foreground_classes=1")
    assert_equal(dict(build_network(without.network).state_dict()), dict(before.state_dict()))
    named = dataclasses.replace(run, network=dataclasses.replace(run.network, start_from="default"))
    shipped = checkpoint.read_metadata(ROOT / "sfi_ros/weights/default.safetensors").extra
    assert checkpoint.read_metadata(checkpoints.export(named, product.parent)).extra["start_from"] == shipped


def test_kinds_alone_need_weights_and_a_network_that_tells_them(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train_only needs weights to leave as they are: set network\.start_from"):
        configured(tmp_path / "run", "network.train_only=kinds", "network.foreground_classes=3")
    start = f"network.start_from={finished / 'model.safetensors'}"
    with pytest.raises(ValueError, match=r"network\.train_only=kinds needs .* set network\.foreground_classes=3"):
        build_network(configured(tmp_path / "run", "network.train_only=kinds", start).network)


# --- stopping and resuming -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "sample", "saved_step"),
    [("training", 0, 1), ("training", 10, 3), ("training", 14, 4), ("validation", 1, 3), ("validation", 4, 6)],
    ids=["first step", "before a validation", "between validations", "in a validation", "in the last validation"],
)
def test_a_stopped_run_ends_with_the_same_weights(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, sample: int, saved_step: int
) -> None:
    """SIGTERM comes while a certain sample is being loaded; the run saves, stops, and continues exactly."""
    folder = tmp_path / "run"
    loads = {"training": 0, "validation": 0}

    def watched(original: Any, kind: str) -> Any:
        def load_sample(self: Any, index: int) -> Any:
            if kind == "training" or self.split == "val":
                if (kind, loads[kind]) == (where, sample):
                    signal.raise_signal(signal.SIGTERM)
                loads[kind] += 1
            return original(self, index)

        return load_sample

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSet, "__getitem__", watched(TrainingSet.__getitem__, "training"))
        patch.setattr(Synthetic, "__getitem__", watched(Synthetic.__getitem__, "validation"))
        with pytest.raises(Interrupted, match=f"SIGTERM after step {saved_step}"):
            train.run(configured(folder))
    assert state(folder / "last.ckpt")["step"] == saved_step
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "the signals are given back"
    train.run(configured(folder), resume="last")
    assert_same_run(finished, folder)
    assert_equal(
        checkpoint.load(folder / "model.safetensors").network.state_dict(),
        checkpoint.load(finished / "model.safetensors").network.state_dict(),
    )


def test_a_run_continues_from_its_best_checkpoint(finished: Path, tmp_path: Path) -> None:
    """Also if it was written where the optimizer is fused: how steps are computed is up to the machine."""
    folder = tmp_path / "run"
    folder.mkdir()
    best = tmp_path / "best.ckpt"
    saved = state(finished / "best.ckpt")
    for group in saved["optimizer"]["param_groups"]:
        group["fused"] = True
    torch.save(saved, best)
    train.run(configured(folder), resume=str(best))
    first, second = state(finished / "last.ckpt"), state(folder / "last.ckpt") if best_is_early(best) else state(best)
    for key in ("network", "average"):
        assert_equal(first[key], second[key], key)


def best_is_early(file: Path) -> bool:
    return state(file)["step"] < TINY["schedule"]["steps"]


def test_sigterm_from_outside_with_workers_and_the_printed_command_to_continue(tmp_path: Path) -> None:
    """A real process, real workers; accumulation and augmentation by batches on top. Its twin is not stopped and has
    no workers."""
    steps = ("schedule.steps=12", "schedule.validate_every=12", "data.accumulate=2", "data.validation.street.frames=1")
    steps += ("data.augment_on=device",)
    folder = tmp_path / "run"
    configuration = configured(folder, *steps)
    file = tmp_path / "written.yaml"
    file.write_text(yaml.safe_dump(as_dictionary(configuration)))
    command = [sys.executable, str(ROOT / "training/train.py"), "--config", str(file), "data.workers=1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), cwd=ROOT
    ) as process:
        output = ""
        for line in process.stdout:
            output += line
            if line.startswith("step 1/"):
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM, output
    stopped_at = int(re.search(r"stopped by SIGTERM after step (\d+)", output).group(1))
    assert "warning: data.augment_on=device is experimental" in output
    assert 1 <= stopped_at < 12 and state(folder / "last.ckpt")["step"] == stopped_at
    again = shlex.split(output.strip().splitlines()[-1])
    assert again[1:2] == ["training/train.py"] and again[-2:] == ["--resume", "last"]
    done = subprocess.run(
        [sys.executable, *again[1:]], capture_output=True, text=True, env=environment(), cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    train.run(configured(tmp_path / "twin", *steps))
    assert_same_run(tmp_path / "twin", folder)


def test_another_configuration_is_not_resumed(finished: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"optimizer\.head_rate: 0\.0008 -> 0\.001"):
        train.run(configured(finished, "optimizer.head_rate=0.001", "run.log_every=5"), resume="last")


def test_settings_that_came_after_a_run_do_not_keep_it_from_being_resumed(finished: Path) -> None:
    before = state(finished / "last.ckpt")
    del before["configuration"]["losses"]["kind_weight"], before["configuration"]["network"]["train_only"]
    checkpoints.require_same_run(before, finished, configured(finished))
    with pytest.raises(ConfigurationError, match=r"losses\.kind_weight: 1\.0 -> 2\.0"):
        checkpoints.require_same_run(before, finished, configured(finished, "losses.kind_weight=2"))
    before["configuration"]["losses"]["gone"] = 1
    with pytest.raises(ConfigurationError, match=r"losses\.gone: 1 -> None"):
        checkpoints.require_same_run(before, finished, configured(finished))


def test_a_finished_run_is_not_overwritten_by_accident(finished: Path) -> None:
    before = (finished / "last.ckpt").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match=r"--resume last continues it, --overwrite starts anew"):
        train.run(configured(finished))
    assert (finished / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.parametrize("kept", [0, 5000, -100], ids=["empty", "the beginning", "all but the end"])
def test_a_damaged_checkpoint_is_named_with_a_way_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture, kept: int
) -> None:
    """A disk that was full, a copy that broke off. The way on is true: the best checkpoint is looked at, too."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    content = (folder / "last.ckpt").read_bytes()
    (folder / "last.ckpt").unlink()  # it may be the best one, too
    (folder / "last.ckpt").write_bytes(content[:kept])
    assert train.main([*arguments(folder), "--resume", "last"]) == 2
    message = capsys.readouterr().err
    assert message == (
        f"error: {folder / 'last.ckpt'} is damaged: resume from {folder / 'best.ckpt'}, "
        "or start anew with --overwrite\n"
    )
    (folder / "best.ckpt").write_bytes(b"")
    assert train.main([*arguments(folder), "--resume", "last"]) == 2
    assert "last.ckpt is damaged: start anew with --overwrite\n" in capsys.readouterr().err


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save({"state_dict": {}, "global_step": 3, "loops": {}}, folder / "last.ckpt")
    assert train.main([*arguments(folder), "--resume", "last"]) == 2
    assert "was written by an earlier version of this project" in capsys.readouterr().err


def test_a_product_of_an_earlier_version_is_trained_on(tmp_path: Path) -> None:
    """The shipped weights, called by their name, were trained with Lightning's Trainer, and are stored in float16."""
    product = ROOT / "sfi_ros/weights/default.safetensors"
    network = build_network(configured(tmp_path / "run", "network.start_from=default").network)
    assert_equal(dict(network.state_dict()), dict(checkpoint.load(product).network.state_dict()))
    assert {value.dtype for value in network.parameters()} == {torch.float32}


def test_encoders_start_from_float16_weights(tmp_path: Path) -> None:
    """Half the size to carry to another machine; what is trained is float32 all the same."""
    model = torchvision.models.get_model("mobilenet_v2", weights=None)
    state = {name: value.half() for name, value in model.state_dict().items() if value.is_floating_point()}
    safetensors.torch.save_file(state, tmp_path / "half.safetensors")
    network = build_network(configured(tmp_path / "run", f"network.pretrained={tmp_path / 'half.safetensors'}").network)
    (first, *_) = (module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    assert torch.equal(first.weight, state["features.0.0.weight"].float()) and first.weight.dtype == torch.float32


# --- one batch, however it is divided --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    train.run(configured(folder, *LIKE_ONE_BATCH, *THREE_STEPS))
    return folder


THREE_STEPS = (
    "schedule.steps=3",
    "losses.mask_overlap=dice",
    "losses.hidden_weight=2",
    "losses.doubtful_border=2",
    "optimizer.encoder_rate=1e-5",
    "optimizer.head_rate=1e-5",
)


def assert_close_run(one: Path, other: Path) -> None:
    first, second = state(one / "last.ckpt")["network"], state(other / "last.ckpt")["network"]
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
    # Adam's step hides the size of a gradient; its second moments do not.
    moments = [
        torch.cat([entry["exp_avg"].flatten() for entry in state(f / "last.ckpt")["optimizer"]["state"].values()])
        for f in (one, other)
    ]
    assert (moments[0] - moments[1]).norm() < 1e-3 * moments[0].norm()  # convolutions of other batch sizes round so


def test_accumulated_parts_equal_the_undivided_batch(one_batch: Path, tmp_path: Path) -> None:
    train.run(configured(tmp_path / "run", *LIKE_ONE_BATCH, *THREE_STEPS, "data.accumulate=4"))
    assert_close_run(one_batch, tmp_path / "run")
    assert state(tmp_path / "run" / "last.ckpt")["step"] == 3


def test_two_processes_under_torchrun_equal_one_with_the_double_batch(one_batch: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    configured(folder)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "training/train.py"), "--config", str(folder.with_suffix(".yaml")), f"output={folder}"]
    done = subprocess.run(
        [*command, *LIKE_ONE_BATCH, *THREE_STEPS], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_close_run(one_batch, folder)
    assert logged(folder, "train/loss") == pytest.approx(logged(one_batch, "train/loss"), rel=1e-5)
    assert logged(folder, "train/gradient_norm") == pytest.approx(logged(one_batch, "train/gradient_norm"), rel=1e-4)
    # Three images on two processes: each is counted once.
    one, two = (ScoreLog(f / "scores.jsonl").read()[-1]["scores"]["street"] for f in (one_batch, folder))
    assert one == pytest.approx(two, abs=2e-3, nan_ok=True)
    assert done.stdout.count("wrote ") == 1, "one process speaks"


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be split into data\.accumulate=3"):
        configured(tmp_path / "run", "data.accumulate=3")


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_step_and_names(tmp_path: Path) -> None:
    overrides = ("optimizer.head_rate=1e30", "optimizer.clip_norm=null", "schedule.warmup_steps=0")
    assert "dataset: synthetic" in configured_text(tmp_path / "run")
    status = train.main([*arguments(tmp_path / "run"), *overrides])
    assert status == 1
    message = (tmp_path / "run" / "stopped.txt").read_text()
    assert re.search(r"the (loss|gradient) of step [1-5] is not finite", message), message
    assert len(re.findall(r"street\d+/\d{6}", message)) == 4, "the four samples of the batch"
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_that_is_not_finite_stops_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fused: bool
) -> None:
    """With a fused optimizer, as on a GPU, the run learns of it one step later: the weights must be as before."""
    if fused:
        monkeypatch.setattr(loop, "uses_fused_optimizer", lambda *_: True)
    networks: list[torch.nn.Module] = []

    class Exploding(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("inf")

    def exploding(options: Any, original=loop.build_network) -> torch.nn.Module:
        network = original(options)
        networks.append(network)
        network.early.register_forward_hook(lambda _, __, output: tuple(Exploding.apply(value) for value in output))
        return network

    monkeypatch.setattr(loop, "build_network", exploding)
    torch.manual_seed(0)
    expected = build_network(configured(tmp_path / "run").network)
    with pytest.raises(NonFiniteLoss, match=r"the gradient of step 0 is not finite; the batch was street\d+"):
        train.run(configured(tmp_path / "run"))
    assert_equal(dict(networks[0].named_parameters()), dict(expected.named_parameters()))
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_a_step_that_was_not_finite_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very last step of a run with a fused optimizer: nobody comes later who would learn of it."""
    monkeypatch.setattr(loop, "uses_fused_optimizer", lambda *_: True)
    one = ("schedule.steps=1", "schedule.validate_every=1", "losses.background_weight=1e39")
    with pytest.raises(NonFiniteLoss, match=r"the loss of step 0 is not finite \(background \d"):
        train.run(configured(tmp_path / "run", *one))
    assert not (tmp_path / "run" / "last.ckpt").exists()


def arguments(folder: Path) -> list[str]:
    configured(folder)
    return ["--config", str(folder.with_suffix(".yaml")), f"output={folder}"]


def configured_text(folder: Path) -> str:
    configured(folder)
    return folder.with_suffix(".yaml").read_text()


# --- labels and scores that nobody should train on --------------------------------------------------------------------


def with_folder(folder: Path, *overrides: str) -> list[str]:
    """A robot's own set, laid out twice: for training and for validation."""
    for section in ("train", "val"):
        root = folder.parent / section
        for number in range(3):
            labels = torch.full((1, 32, 64), 7, dtype=torch.uint8)
            labels[:, :12], labels[:, 6:20, 20 * number + 2 : 20 * number + 16] = 11, 26
            for kind, content in (("images", labels.repeat(3, 1, 1) * 6), ("labels", labels)):
                (root / kind).mkdir(parents=True, exist_ok=True)
                write_png(content, str(root / kind / f"{number}.png"))
        (root / "classes.yaml").write_text("background: {road: [7], sidewalk: [8], other: [11]}\nforeground: [26]\n")
    sources = [f"data.train={{robot: {{dataset: folder, root: {folder.parent / 'train'}}}}}"]
    sources += [f"data.validation={{robot: {{dataset: folder, root: {folder.parent / 'val'}}}}}"]
    return [*arguments(folder), *sources, *overrides]


@pytest.mark.parametrize("monitor", ["foreground_region_miou", "foreground_region_iou_road"])
def test_a_score_that_the_set_cannot_tell_does_not_choose(
    tmp_path: Path, capsys: pytest.CaptureFixture, monitor: str
) -> None:
    """Without truth behind objects every validation is as good as the first: refused before anything is trained."""
    command = with_folder(tmp_path / "run", f"run.monitor={monitor}")
    assert train.main(command) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {monitor}, which chooses the best checkpoint, is not known on robot")
    for remedy in ("data.validation.robot.pasted: 1.0", "run.monitor=all_region_miou", "run.export=last"):
        assert remedy in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "remedy", ["data.validation.robot.pasted=1.0", "run.monitor=all_region_miou", "run.export=last"]
)
def test_what_the_message_advises_trains(tmp_path: Path, remedy: str) -> None:
    assert train.main([*with_folder(tmp_path / "run", remedy), "schedule.steps=2", "schedule.validate_every=1"]) == 0
    scores = {row["step"]: row["scores"]["robot"] for row in ScoreLog(tmp_path / "run/scores.jsonl").read()}
    product = checkpoint.read_metadata(tmp_path / "run/model.safetensors")
    if remedy == "run.export=last":
        assert product.extra["step"] == 2
    else:
        monitor = "foreground_region_miou" if "pasted" in remedy else "all_region_miou"
        assert product.extra["step"] == max(scores, key=lambda step: (scores[step][monitor], -step))


def test_a_score_that_turns_out_to_be_unknown_never_chooses_the_first_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """No sidewalk is in the images that are looked at, nor in any other: warned of, then the newest weights count."""
    command = with_folder(tmp_path / "run", "run.monitor=all_region_iou_sidewalk")
    assert train.main([*command, "schedule.steps=2", "schedule.validate_every=1"]) == 0
    captured = capsys.readouterr()
    assert "warning: in 3 of its 3 images all_region_iou_sidewalk, which chooses" in captured.err
    assert captured.out.count("warning: all_region_iou_sidewalk is not known on robot") == 2
    assert checkpoint.read_metadata(tmp_path / "run/model.safetensors").extra["step"] == 2


def test_a_misspelt_monitor_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train.main([*arguments(tmp_path / "run"), "run.monitor=foreground_miou"]) == 2
    assert "unknown run.monitor 'foreground_miou': did you mean 'foreground_region_miou'?" in capsys.readouterr().err


def test_a_monitor_that_the_network_does_not_tell_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train.main([*arguments(tmp_path / "run"), "run.monitor=foreground_classes_miou"]) == 2
    assert "the network tells no kinds of objects: set network.foreground_classes=3" in capsys.readouterr().err


def test_the_names_of_scores_are_those_that_are_measured(finished: Path) -> None:
    assert set(SCORE_NAMES) == set(ScoreLog(finished / "scores.jsonl").read()[0]["scores"]["street"])


@pytest.mark.parametrize("section", ["train", "val"])
def test_labels_of_another_convention_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture, section: str) -> None:
    """Train ids in a Cityscapes tree: 0 road, 1 sidewalk, 13 car. No pixel is what it should be."""
    command = with_folder(tmp_path / "run", "run.export=last")
    for file in (tmp_path / section / "labels").glob("*.png"):
        write_png(torch.full((1, 32, 64), 11, dtype=torch.uint8), str(file))
    assert train.main(command) == 2
    where = f"data.{'train' if section == 'train' else 'validation'}.robot"
    assert f"error: {where}: no pixel of road, sidewalk or foreground in 3 images" in capsys.readouterr().err
    root = str(tmp_path / section)
    evaluate.main(["--weights", "default", "--dataset", "folder", "--root", root, "--height", "32", "--quiet"])
    assert "warning: no pixel of road, sidewalk or foreground in 3 images" in capsys.readouterr().err
    check_data.main(["--dataset", "folder", "--root", root, "--height", "32", "--workers", "0"])
    assert "no pixel of road, sidewalk or foreground in 3 images" in capsys.readouterr().out.replace("\n", " ")


def test_train_ids_in_cityscapes_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = shared("cases/cityscapes-train-ids/citytid")
    sources = [f"data.{kind}={{c: {{dataset: cityscapes, root: {root}, split: {split}}}}}" for kind, split in SPLITS]
    assert train.main([*arguments(tmp_path / "run"), *sources]) == 2
    assert "are these *_labelIds.png" in capsys.readouterr().err


SPLITS = (("train", "train"), ("validation", "val"))


# --- a time limit -----------------------------------------------------------------------------------------------------


class Clock:
    """Time that passes when somebody says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("pace", "validation", "validate_every"),
    [
        (lambda step: 0.1, 4.0, None),
        (lambda step: 0.1, 4.0, 100),
        (lambda step: 20.0 if step == 0 else 0.1, 4.0, None),  # compiles at first
        (lambda step: 0.5 if step < 200 else 0.1, 4.0, None),  # fills a cache, then reads from it
        (lambda step: 0.1 if step < 1000 else 0.4, 4.0, None),  # somebody else wants the machine, too
        (lambda step: 7.0, 10.0, None),  # a large network
        (lambda step: 0.1, 60.0, None),  # a large validation set, which nobody has timed
    ],
)
def test_a_run_with_a_time_limit_uses_it_and_keeps_it(
    pace: Callable[[int], float], validation: float, validate_every: int | None
) -> None:
    clock = Clock()
    schedule = Schedule(ScheduleConfig(minutes=5, validate_every=validate_every), steps_per_epoch=10)
    limit = TimeLimit(300, validate_every=validate_every, validation_share=validation / pace(10_000), clock=clock)
    step, factors = 0, []
    while not schedule.ends_at(step):
        factors.append(schedule.factor(step))
        clock.now += pace(step)
        step += 1
        schedule.steps = limit.after(step) or schedule.steps
        if schedule.validates_at(step):
            with limit.validating():
                clock.now += validation
    assert 0.9 * 300 < limit.spent <= 300
    assert factors[0] == 1 and factors[-1] < 0.1, "the rate falls to its end"
    assert validate_every is None or step > 3 * validate_every


def test_a_time_limit_that_is_too_short_still_gives_a_step() -> None:
    clock = Clock()
    limit = TimeLimit(1, clock=clock)
    clock.now += 30
    assert limit.after(1) == 1


def test_a_resumed_run_uses_what_is_left_of_its_time() -> None:
    whole, rest = (TimeLimit(300, spent=spent, clock=Clock()) for spent in (0.0, 200.0))
    planned = []
    for limit in (whole, rest):
        for step in range(1, 20):
            limit._clock.now += 0.5
            planned.append(limit.after(step))
    assert planned[18] == pytest.approx((300 - 9) / 0.5, abs=3)
    assert planned[-1] == pytest.approx((100 - 9) / 0.5, abs=3)


def test_a_run_with_a_time_limit_ends_by_itself_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    configuration = configured(folder, "schedule.steps=null", "schedule.validate_every=null", "schedule.minutes=10")

    def stopped(self: Any, number: int, original: Any = TrainingSet.__getitem__) -> Any:
        if number == 10:
            signal.raise_signal(signal.SIGTERM)
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSet, "__getitem__", stopped)
        with pytest.raises(Interrupted):
            train.run(configuration)
    saved = state(folder / "last.ckpt")
    assert saved["step"] == 3 and saved["spent"] > 0
    # The resumed run finds its plan too short: there must be samples for more steps than that.
    torch.save({**saved, "planned": 4}, folder / "last.ckpt")
    monkeypatch.setattr(TimeLimit, "after", lambda *_: 6)
    product = train.run(configuration, resume="last")
    last = state(folder / "last.ckpt")
    assert last["step"] == last["planned"] == 6 and last["spent"] > state(folder / "best.ckpt")["spent"] - 1e-6
    assert [row["step"] for row in ScoreLog(folder / "scores.jsonl").read()] == [last["step"]]
    assert checkpoint.read_metadata(product).extra["step"] == last["step"]


# --- data ------------------------------------------------------------------------------------------------------------


def cityscapes(root: Path, images: int = 4) -> Path:
    """A tiny Cityscapes tree: road below, a car in front of a wall."""
    for number in range(images):
        ids = torch.full((1, 32, 64), 11, dtype=torch.uint8)
        ids[:, 16:] = 7
        ids[:, 12:22, 8 * number + 4 : 8 * number + 18] = 26
        for folder, suffix in (("leftImg8bit", "leftImg8bit.jpg"), ("gtFine", "gtFine_labelIds.png")):
            file = root / folder / "train" / "aachen" / f"aachen_{number:06d}_000019_{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            (write_png if suffix.endswith("png") else write_jpeg)(
                ids if suffix.endswith("png") else ids.repeat(3, 1, 1) * 4, str(file)
            )
    return root


def with_cityscapes(folder: Path, *overrides: str) -> Configuration:
    root = cityscapes(folder.parent / "cityscapes")
    sources = "{dataset: cityscapes, split: train, share: 0.75, pasted: 1.0}"
    return configured(
        folder,
        f"data.roots.cityscapes={root}",
        f"data.train={{cityscapes: {sources}, street: {{dataset: synthetic, share: 0.25, drives: 2, frames: 3}}}}",
        "data.validation={pasted: {dataset: cityscapes, split: train, pasted: 1.0, limit: 2}}",
        "schedule.steps=1",
        "schedule.validate_every=1",
        *overrides,
    )


def test_sources_are_mixed_by_their_shares_and_every_image_comes_up_once_an_epoch(tmp_path: Path) -> None:
    stream = TrainingSet(with_cityscapes(tmp_path / "run"))
    places = [stream.place(number) for number in range(400)]
    assert [source for source, _ in places].count(0) == 300
    for source in (0, 1):
        assert [count for kind, count in places if kind == source] == list(range(100 if source else 300))
    names = [stream[number].names[0] for number in range(64)]
    streets = [name for name in names if name.startswith("street")]
    assert len(streets) == 16 and sorted(streets[:6]) == sorted(set(streets)) == sorted(streets[6:12])
    towns = [name for name in names if not name.startswith("street")]
    assert sorted(towns[:4]) == sorted(set(towns)) == sorted(towns[4:8])


def test_samples_depend_on_nothing_but_their_number(tmp_path: Path) -> None:
    configuration = with_cityscapes(tmp_path / "run")
    forwards = [TrainingSet(configuration)[number] for number in range(12)]
    stream = TrainingSet(configuration)
    for number in reversed(range(12)):
        assert_equal(vars(stream[number]), vars(forwards[number]))
    assert not torch.equal(TrainingSet(with_cityscapes(tmp_path / "run", "seed=1"))[0].image, forwards[0].image)


def test_fake_masks_are_silhouettes_of_the_objects_of_the_set(tmp_path: Path) -> None:
    """The cars of this set are rectangles of 14x10 pixels: they keep these proportions, which are those of no image."""
    sizes = ("fake_masks.count=1", "fake_masks.sizes=[0.5, 0.5]", "augmentation={}")
    stream = TrainingSet(with_cityscapes(tmp_path / "run", *sizes, "fake_masks.shape=silhouettes"))
    assert {int(stream[number].fake_foreground.sum()) for number in range(8)} == {16 * 22}
    plain = TrainingSet(with_cityscapes(tmp_path / "run", *sizes))
    assert {int(plain[number].fake_foreground.sum()) for number in range(8)} == {16 * 32}
    assert torch.equal(stream[3].image, plain[3].image), "nothing else moves"


def test_plain_walls_change_the_image_and_nothing_else(tmp_path: Path) -> None:
    stream = TrainingSet(with_cityscapes(tmp_path / "run"))
    walled = TrainingSet(with_cityscapes(tmp_path / "run", "augmentation.plain_walls=0.5"))
    examples = [(stream[number], walled[number]) for number in range(40)]
    for plain, other in examples:
        assert_equal(vars(plain) | {"image": 0}, vars(other) | {"image": 0})
    changed = sum(not torch.equal(plain.image, other.image) for plain, other in examples)
    assert 8 <= changed <= 28, "about half of them, but for walls that nothing is seen of"


def test_a_batch_that_a_device_augments_is_the_one_that_workers_augment(tmp_path: Path) -> None:
    """From sources of different sizes, with pasted objects: labels and fake masks equal, images nearly."""
    configuration = with_cityscapes(tmp_path / "run", "network.input_height=48", "augmentation.noise=0")
    stream = TrainingSet(configuration)
    on_cpu = stack([stream[number] for number in range(8)])
    stream.augments = False
    raw = stack([stream[number] for number in range(8)])
    assert raw.image.shape[-2:] == (48, 96) != on_cpu.image.shape[-2:] == (32, 64)
    on_device = raw.augmented()
    assert on_device.drawn is None and on_device.names == on_cpu.names
    for field in ("foreground", "kinds", "background", "fake_foreground"):
        assert torch.equal(getattr(on_device, field), getattr(on_cpu, field)), field
    assert (on_device.image.int() - on_cpu.image.int()).abs().float().mean() < 1


def test_the_forward_half_of_a_step_asks_a_device_for_no_value(tmp_path: Path) -> None:
    """On the meta device that is an error; on a GPU the host would wait."""
    options = ("losses.mask_overlap=dice", "losses.hidden_weight=2", "losses.doubtful_border=2")
    configuration = configured(
        tmp_path / "run", *options, "losses.border_weight=2", "losses.foreground_hard_fraction=0.5"
    )
    stream = TrainingSet(configuration)
    stream.augments = False
    batch = stack([stream[number] for number in range(2)])
    network = build_network(configuration.network).train()
    supervision(batch.foreground, batch.background, None, configuration.losses)  # constants are made
    on_meta = batch.map(lambda tensor: tensor.to("meta"))
    output = TrainedNetwork(network).to("meta")(on_meta.image, fake_foreground=on_meta.fake_foreground)
    truth = supervision(on_meta.foreground, on_meta.background, on_meta.fake_foreground, configuration.losses)
    assert losses(output.background, output.foreground, truth, configuration.losses).total.is_meta


def test_the_network_decides_what_the_configuration_leaves_open(tmp_path: Path) -> None:
    """A two-stage network by its name alone; the released code's boundary, also in what is trained on from."""
    two_stage = build_network(configured(tmp_path / "run", "network.name=two-stage-resnet18").network)
    assert (two_stage.options.mpi_position, two_stage.options.fill) == ("image", "zero")
    raw = configured(tmp_path / "raw", "network.boundary=raw", "schedule.steps=1", "schedule.validate_every=1")
    product = train.run(raw)
    assert checkpoint.read_metadata(product).options["boundary"] == "raw"
    assert build_network(configured(tmp_path / "run").network).options.boundary == "dilated"
    start = f"network.start_from={product}"
    assert build_network(configured(tmp_path / "run", start).network).options.boundary == "raw"
    assert build_network(configured(tmp_path / "run", start, "network.boundary=dilated").network).options.boundary == (
        "dilated"
    )


def test_a_precision_that_the_processor_does_not_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "multiplies_bfloat16", lambda: False)
    for precision in ("float16", "bfloat16"):
        with pytest.raises(ConfigurationError, match=f"run.precision={precision} trains on a GPU.*: set run.precision"):
            train.run(configured(tmp_path / "run", f"run.precision={precision}"))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match=r"run.accelerator=gpu, but PyTorch finds no GPU"):
            train.run(configured(tmp_path / "run", "run.accelerator=gpu"))


@pytest.mark.skipif(not devices.multiplies_bfloat16(), reason="this processor does not multiply bfloat16")
def test_bfloat16_trains_on_a_cpu_that_has_it(tmp_path: Path) -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        configuration = configured(tmp_path / "run", f"run.precision={precision}", "network.name=fast-mobilenetv2")
        fabric = build_fabric(configuration.run)
        learner = loop.Learner.build(fabric, configuration)
        (batch,) = itertools.islice(TrainingData(configuration).training_batches(fabric, 0, 1), 1)
        found[precision] = loop.take_step(learner, batch, 1.0)
        assert all(parameter.isfinite().all() for parameter in learner.network.parameters())
    assert not torch.equal(found["float32"], found["bfloat16"])
    torch.testing.assert_close(found["float32"][:4], found["bfloat16"][:4], rtol=0.05, atol=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_float16_is_scaled_skips_what_overflows_and_resumes(tmp_path: Path) -> None:
    configuration = configured(tmp_path / "run", "run.accelerator=gpu", "run.devices=1", "run.precision=float16")
    fabric = build_fabric(configuration.run)
    learner = loop.Learner.build(fabric, configuration)
    assert learner.scaler is not None and not learner.is_fused
    (batch,) = itertools.islice(TrainingData(configuration).training_batches(fabric, 0, 1), 1)
    loop.take_step(learner, batch, 1.0)
    before, scale = {k: v.clone() for k, v in learner.network.named_parameters()}, learner.scaler.get_scale()
    learner.scaler.load_state_dict({**learner.scaler.state_dict(), "scale": 2.0**60})
    loop.take_step(learner, batch, 1.0)
    assert learner.scaler.get_scale() == 2.0**59
    assert_equal(dict(learner.network.named_parameters()), before)
    other = loop.Learner.build(fabric, configuration)
    other.load_state(learner.state())
    assert other.scaler.get_scale() == 2.0**59 != scale


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_several_gpus_synchronise_batch_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU says that it is one of two: the network that it builds shares statistics, under the names of one."""
    configuration = configured(tmp_path / "run", "run.accelerator=gpu", "run.devices=1")
    fabric = build_fabric(configuration.run)
    alone = loop.Learner.build(fabric, configuration)
    monkeypatch.setattr(type(fabric), "world_size", 2)
    several = loop.Learner.build(fabric, configuration)
    kinds = {type(m) for m in several.network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)}
    assert (
        kinds == {torch.nn.SyncBatchNorm} and several.network.state_dict().keys() == alone.network.state_dict().keys()
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_host_does_not_wait_for_a_gpu_within_a_step(tmp_path: Path) -> None:
    """Waiting is an error in and between all steps but the first, which make constants and optimizer state."""
    configuration = configured(tmp_path / "run", "run.accelerator=gpu", "run.devices=1")
    fabric = build_fabric(configuration.run)
    learner = loop.Learner.build(fabric, configuration)
    batches = TrainingData(configuration).training_batches(fabric, 0, 6)
    try:
        for step in range(6):
            torch.cuda.set_sync_debug_mode("error" if step >= 2 else "default")
            loop.take_step(learner, next(batches), 1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    learner.health.check()
    assert learner.step == 6 and learner.is_fused


def test_a_validation_set_smaller_than_the_number_of_processes_is_refused(tmp_path: Path) -> None:
    data = TrainingData(configured(tmp_path / "run"))
    smallest = min(map(len, data.validation_sets.values()))
    fabric = SimpleNamespace(world_size=smallest + 1, global_rank=0, device=torch.device("cpu"))
    with pytest.raises(ConfigurationError, match=f"has {smallest} images for {smallest + 1} processes"):
        data.validation_loaders(fabric)


def test_processes_that_fabric_starts_know_their_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert devices.rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert devices.rank() == 3
    monkeypatch.setenv("RANK", "11")
    assert devices.rank() == 11


def test_truth_behind_pasted_objects_is_trained_on_only_if_wanted(tmp_path: Path) -> None:
    plain = ("augmentation={}", "fake_masks.count=0")
    told = stack([TrainingSet(with_cityscapes(tmp_path / "run", *plain))[n] for n in range(8)])
    untold = stack(
        [TrainingSet(with_cityscapes(tmp_path / "run", *plain, "data.true_background=false"))[n] for n in range(8)]
    )
    assert torch.equal(told.foreground, untold.foreground) and told.fake_foreground is None
    assert (untold.background[untold.foreground == 1] == 255).all()
    assert (told.background[told.foreground == 1] != 255).any()


def test_cityscapes_with_pasted_objects_trains(tmp_path: Path) -> None:
    product = train.run(with_cityscapes(tmp_path / "run"))
    scores = checkpoint.read_metadata(product).scores
    assert 0 <= scores["pasted/foreground_region_miou"] <= 1


def test_check_finds_a_damaged_file_before_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    configuration = with_cityscapes(tmp_path / "run")
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump(as_dictionary(configuration)))
    damaged = next((tmp_path / "cityscapes").rglob("aachen_000002*_labelIds.png"))
    damaged.write_bytes(damaged.read_bytes()[:60])
    assert train.main(["--config", str(file), "--check"]) == 2
    captured = capsys.readouterr()
    assert "checking cityscapes" in captured.out and damaged.name in captured.err
    assert not (tmp_path / "run").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"/nowhere does not exist.*--root|/nowhere does not exist"):
        TrainingData(with_cityscapes(tmp_path / "run", "data.roots.cityscapes=/nowhere"))


# --- parts -----------------------------------------------------------------------------------------------------------


def test_the_moving_average_follows_the_weights() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = MovingAverage(network, decay=0.9)
    expected = network[0].weight.detach().clone()
    for update in range(40):
        with torch.no_grad():
            network[0].weight += 1
        network[1].num_batches_tracked += 1
        average.update()
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * network[0].weight.detach()
    torch.testing.assert_close(average.network[0].weight, expected)
    assert average.network[1].num_batches_tracked == 40
    assert not average.network.training and not average.network[0].weight.requires_grad


def test_encoder_and_head_have_their_own_rates_and_vectors_no_decay(tmp_path: Path) -> None:
    configuration = configured(tmp_path / "run")
    network = build_network(configuration.network)
    optimizer = build_optimizer(network, configuration.optimizer)
    encoder = {id(parameter) for parameter in network.encoder_parameters()}
    seen = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen += 1
            assert group["lr"] == (2e-4 if id(parameter) in encoder else 8e-4)
            assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else 0)
    assert seen == len(list(network.parameters()))


def test_rate_schedules(tmp_path: Path) -> None:
    schedule = configured(tmp_path / "run", "schedule.warmup_steps=0", "schedule.staircase_epochs=2").schedule
    rates = functools.partial(rate_factor, steps=100, steps_per_epoch=10)
    assert rates(schedule, 0) == 1 and rates(schedule, 50) == pytest.approx(0.5**0.9) and rates(schedule, 100) == 0
    staircase = dataclasses.replace(schedule, decay="staircase")
    assert [rates(staircase, step) for step in (0, 19, 20, 39, 40)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    warm = dataclasses.replace(schedule, decay="constant", warmup_steps=3)
    assert [rates(warm, step) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_a_score_log_survives_a_line_cut_off(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path / "scores.jsonl")
    for step in (10, 20, 30):
        log.append(step, {"street": {"miou": 0.1 * step, "nothing": float("nan")}})
    with log.path.open("a") as file:
        file.write('{"step": 40, "sco')
    assert [row["step"] for row in log.read()] == [10, 20, 30]
    assert log.read()[0]["scores"]["street"] == {"miou": 1.0, "nothing": None}
    log.forget_after(20)
    assert [row["step"] for row in log.read()] == [10, 20]
