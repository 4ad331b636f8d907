"""Trains a network: `python training/train.py --config config/training/default.yaml`.

Reads a configuration, trains, validates, writes logs and checkpoints into the run's folder, and ends with a product
checkpoint that the node and `sfi` load, and the command that evaluates it. The loop is `training/learning/loop.py`.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml
from lightning.fabric.loggers import CSVLogger, Logger, TensorBoardLogger

from sfi_ros.errors import SfiError
from sfi_ros.files import make_folder
from sfi_ros.network import checkpoint
from sfi_ros.options import experimental
from training.check_data import check_dataset
from training.configuration import Configuration, ConfigurationError, as_dictionary, describe, load
from training.data.datasets import DatasetError
from training.data.label_check import problem_of
from training.data.loaders import TrainingData
from training.data.sources import open_source
from training.learning import checkpoints
from training.learning.checkpoints import BEST, LAST, PRODUCT, SCORES, ScoreLog
from training.learning.devices import build_fabric, rank
from training.learning.health import NonFiniteLoss
from training.learning.loop import Learner, fit
from training.learning.schedule import Schedule, TimeLimit
from training.learning.signals import Interrupted
from training.learning.validation import require_known_monitor

DESCRIPTION = """\
Train a network. What is trained, on what and how stands in a YAML file under config/training; any of its values
can be overridden behind it as section.key=value (values are YAML; null removes or switches off).
"""

EXAMPLES = """\
examples:
  # no download, a few minutes on a laptop
  python training/train.py --config config/training/quickstart.yaml

  # the default recipe, Cityscapes elsewhere, longer
  python training/train.py --config config/training/default.yaml \\
      data.roots.cityscapes=/data/cityscapes schedule.steps=20000

  # stop it with Ctrl-C or SIGTERM, continue exactly where it was
  python training/train.py --config config/training/default.yaml --resume last

  # four GPUs of one machine
  torchrun --nproc-per-node 4 training/train.py --config config/training/paper.yaml

files in the run's folder (`output` in the configuration):
  config.yaml           the configuration with all overrides
  last.ckpt, best.ckpt  complete state; --resume continues from either
  scores.jsonl          one line per validation
  logs/                 metrics.csv and TensorBoard events (tensorboard --logdir <output>/logs)
  model.safetensors     the product: what `sfi`, the node and training/evaluate.py load

exit status: 0 finished, 1 stopped by an error, 2 wrong configuration or data, 130/143 stopped by a signal and saved.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        overrides = [*options.overrides, *([f"output={options.output}"] if options.output else [])]
        configuration = load(options.config, overrides)
        if options.check:
            _check_data(configuration)
        run(configuration, resume=options.resume, overwrite=options.overwrite)
    except (SfiError, FileExistsError, FileNotFoundError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, NonFiniteLoss) else 2
    except Interrupted as stop:
        if rank() == 0:
            again = _resume_command(sys.argv[1:] if arguments is None else arguments)
            print(f"{stop}; everything is saved. Continue exactly there with:\n  {again}", flush=True)
        return 128 + stop.signal_number
    return 0


def run(configuration: Configuration, *, resume: str | None = None, overwrite: bool = False) -> Path:
    """Train and export.

    Args:
        configuration: what to do.
        resume: a checkpoint to continue from, or "last" for `last.ckpt` in the run's folder.
        overwrite: start anew in a folder that holds a run.

    Returns:
        The product checkpoint.

    Raises:
        ConfigurationError, DatasetError, FileExistsError, FileNotFoundError: before anything is trained.
        NonFiniteLoss: the run broke; the message names step and samples.
        Interrupted: a signal came; the run is saved.
    """
    began, folder = time.monotonic(), Path(configuration.output)
    start = _starting_point(folder, resume, overwrite)
    state = None if start is None else checkpoints.read(start)
    if state is not None:
        checkpoints.require_same_run(state, start, configuration)
    fabric = build_fabric(configuration.run, _loggers(configuration, folder))
    try:
        data = TrainingData(configuration)
        label_warning = _check_labels(configuration, data)
        learner = Learner.build(fabric, configuration)
        if configuration.run.monitor.startswith("foreground_classes") and not learner.network.options.tells_kinds:
            raise ConfigurationError(
                f"run.monitor={configuration.run.monitor}: the network tells no kinds of objects: set "
                "network.foreground_classes=3, or another run.monitor"
            )
    except SfiError:
        raise
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    schedule, limit = Schedule(configuration.schedule, data.training_set.steps_per_epoch()), None
    if state is not None:
        learner.load_state(state)
    if configuration.schedule.minutes is not None:
        spent = time.monotonic() - began
        if state is not None:
            schedule.steps, spent = state["planned"], spent + state["spent"]
        images = sum(map(len, data.validation_sets.values()))
        limit = TimeLimit(
            60 * configuration.schedule.minutes,
            spent=spent,
            validate_every=schedule.validate_every,
            validation_share=images / configuration.data.batch_size,
        )
    if fabric.is_global_zero:
        make_folder(folder)
        (folder / "config.yaml").write_text(yaml.safe_dump(as_dictionary(configuration), sort_keys=False))
        print(_summary(configuration, data, learner, schedule), flush=True)
        for warning in filter(None, (*_experimental_settings(configuration), label_warning)):
            print(f"warning: {warning}", file=sys.stderr)
        ScoreLog(folder / SCORES).forget_after(learner.step)
    try:
        fit(learner, data, schedule, limit, folder)
    except NonFiniteLoss as error:
        if fabric.is_global_zero:
            (folder / "stopped.txt").write_text(f"{error}\n")
        raise
    if fabric.is_global_zero:
        checkpoints.export(configuration, folder)
        print(_farewell(configuration, folder / PRODUCT), flush=True)
    fabric.barrier()
    return folder / PRODUCT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="training/train.py",
        description=DESCRIPTION,
        epilog=f"{EXAMPLES}\nkeys, each with its type and default:\n{describe()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the YAML file to start from")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values that replace its own")
    parser.add_argument("--output", metavar="FOLDER", help="the run's folder (same as output=FOLDER)")
    start = parser.add_argument_group("how to start")
    exclusive = start.add_mutually_exclusive_group()
    exclusive.add_argument(
        "--resume", metavar="CKPT|last", help="continue exactly from a checkpoint, or from the run's last one"
    )
    exclusive.add_argument("--overwrite", action="store_true", help="start anew in a folder that already holds a run")
    start.add_argument(
        "--check",
        action="store_true",
        help="first scan every dataset for unreadable files and label problems",
    )
    return parser


def _starting_point(folder: Path, resume: str | None, overwrite: bool) -> Path | None:
    if resume is not None:
        path = folder / LAST if resume == "last" else Path(resume)
        if not path.is_file():
            raise FileNotFoundError(f"there is nothing to resume: {path} does not exist")
        return path
    if (folder / LAST).is_file():
        if not overwrite:
            raise FileExistsError(
                f"{folder} holds a run already: --resume last continues it, --overwrite starts anew, "
                "output=FOLDER puts this one elsewhere"
            )
        if rank() == 0:
            for name in (LAST, BEST, SCORES, PRODUCT, "stopped.txt"):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "logs", ignore_errors=True)
    return None


def _loggers(configuration: Configuration, folder: Path) -> list[Logger]:
    loggers: list[Logger] = []
    for name in configuration.run.loggers:
        if name == "csv":
            loggers.append(CSVLogger(folder / "logs", name=name, flush_logs_every_n_steps=1))
        else:
            loggers.append(TensorBoardLogger(folder / "logs", name=name))
    return loggers


def _experimental_settings(configuration: Configuration) -> list[str | None]:
    """Return what to tell about settings that are experimental."""
    compiled = f"run.compile={str(configuration.run.compile).lower()}"
    return [experimental(compiled), experimental(f"data.augment_on={configuration.data.augment_on}")]


def _summary(configuration: Configuration, data: TrainingData, learner: Learner, schedule: Schedule) -> str:
    network, options = configuration.network, learner.network.options
    parameters = sum(parameter.numel() for parameter in learner.network.parameters())
    views = f", views {options.views} (a step sees one)" if options.views > 1 else ""
    lines = [
        f"{network.name} ({parameters / 1e6:.2f} M parameters), MPI at {options.mpi_position}, fill {options.fill}, "
        f"mask {options.mask_source}{views}, from {network.start_from or network.pretrained or 'random weights'}"
    ]
    stream = data.training_set
    for name, length, share in zip(configuration.data.train, stream.lengths, stream.shares, strict=True):
        lines.append(f"trains on {name}: {length} images, {share:.0%} of every batch")
    for name, dataset in data.validation_sets.items():
        lines.append(f"validates on {name}: {len(dataset)} images")
    if configuration.data.cache == "ram":
        lines.append(f"keeps decoded images in memory, up to {configuration.data.cache_gigabytes:g} GB")
    if configuration.run.compile:
        lines.append("compiles the network in the first step; that takes a minute or more")
    lines.append(f"{schedule}, batches of {configuration.data.batch_size}; everything goes to {configuration.output}")
    return "\n".join(lines)


def _farewell(configuration: Configuration, product: Path) -> str:
    source = next(iter(configuration.data.validation.values()))
    root = source.root or configuration.data.roots.get(source.dataset)
    place = "" if root is None else f" --root {shlex.quote(root)}"
    if source.dataset in ("cityscapes", "synthetic"):
        place += f" --split {source.split}"
    if source.pasted > 0:
        place += " --pasted"
    if source.limit is not None:
        place += f" --limit {source.limit}"
    metadata = checkpoint.read_metadata(product)
    return (
        f"wrote {product} ({product.stat().st_size / 1e6:.1f} MB, weights of step {metadata.extra['step']})\n"
        f"evaluate it with:\n  {Path(sys.executable).name} training/evaluate.py --weights {product} "
        f"--dataset {source.dataset}{place}"
    )


def _check_labels(configuration: Configuration, data: TrainingData) -> str | None:
    """Look at a few images of every set: are they labelled as they should be, and do they tell what is monitored?

    Returns:
        A warning, if there is something to be warned of.

    Raises:
        ConfigurationError, DatasetError: training would be in vain.
    """
    sections = configuration.data.train, configuration.data.validation
    opened = data.training_set.datasets, data.validation_sets.values()
    for section, sources, datasets in zip(("train", "validation"), sections, opened, strict=True):
        for (name, source), dataset in zip(sources.items(), datasets, strict=True):
            # What is rendered is right, and costs more to look at.
            if source.dataset != "synthetic" and (problem := problem_of(dataset)):
                raise DatasetError(f"data.{section}.{name}: {problem}")
    name, source = next(iter(configuration.data.validation.items()))
    dataset = None if source.dataset == "synthetic" else data.validation_sets[name]
    return require_known_monitor(configuration.run, name, dataset)


def _check_data(configuration: Configuration) -> None:
    """Load every sample of every source once; raises DatasetError if any cannot be."""
    seen = []
    for section in (configuration.data.train, configuration.data.validation):
        for name, source in section.items():
            place = (source.dataset, source.root, source.split)
            if source.dataset == "synthetic" or place in seen:
                continue  # rendered, so there is nothing to be wrong; or the same files again
            seen.append(place)
            print(f"checking {name}", flush=True)
            report = check_dataset(open_source(configuration, source), workers=configuration.data.workers)
            report.print()
            if not report.ok:
                raise DatasetError(
                    f"{name} has {len(report.problems)} samples that cannot be loaded; the first one: "
                    f"{report.problems[0]}"
                )


def _resume_command(arguments: list[str]) -> str:
    kept = list(arguments)
    if "--resume" in kept:
        where = kept.index("--resume")
        del kept[where : where + 2]
    kept = [argument for argument in kept if argument not in ("--overwrite", "--check")]
    return shlex.join([Path(sys.executable).name, "training/train.py", *kept, "--resume", "last"])


if __name__ == "__main__":
    sys.exit(main())
