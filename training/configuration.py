"""Every option of a training run: typed dataclasses, read from YAML, overridden on the command line.

Every field is a plain value with a type. A wrong key names the closest known one, a wrong value says what was
expected, so a run never starts with a setting that was silently not understood.
`load("config/training/default.yaml", ["schedule.steps=100", "data.roots.cityscapes=/data"])`.

The docstrings below are what `python training/train.py --help` prints: each attribute's first sentence.

Values are converted here, in 60 lines, and not by a library. pydantic was tried: to translate its errors, to refuse
`true`, '4' and .nan as numbers, and to drop entries by null took as many. jsonargparse has no "did you mean", and takes
.nan and keys that stand twice.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from sfi_ros.errors import SfiError
from training import yaml_text

PAPER_CLASS_WEIGHTS: Final = (1.0, 5.81867525, 0.78376658)
"""Cross-entropy weights of road, sidewalk and other in the released code."""


class ConfigurationError(SfiError, ValueError):
    """A setting that does not exist, has the wrong type, or contradicts another one."""


@dataclass(frozen=True)
class NetworkConfig:
    """Which network is trained. Null leaves an option to the network, or to the checkpoint that training starts from.

    Attributes:
        name: a network of the zoo, such as fast-mobilenetv2 or paper-resnet18.
        mpi_position: where the foreground is filled: image, block2, block4 or logits (Table III of the paper).
        fill: mpi, or zero for naive blacking out (Table IV of the paper).
        views: 1, 2 (mirrored, too) or 4 (smaller, too). Validation and the product average so many views of an image; a
            training step sees one.
        boundary: dilated as in the paper, or raw as in the released code.
        mask_source: predicted, or given: the true foreground mask is the input of MPI.
        foreground_classes: 1, or 3 to tell kinds of objects as well. They are person, two-wheeler and vehicle.
        pretrained: ImageNet weights: null, imagenet (torchvision downloads them), or a .safetensors file with
            torchvision's names, of any precision.
        start_from: a product checkpoint (.safetensors), or a name that `sfi weights` lists, whose weights training goes
            on from. For one's own data; null starts anew. Weights that tell no kinds of objects go on with
            foreground_classes=3 as well.
        train_only: kinds: nothing learns but what tells kinds of objects. Mask and background stay as they are in
            start_from, bit by bit. Null trains everything.
        input_height: height of the network's input in pixels. It is stored in the product checkpoint.
        freeze_batch_norm: keep batch normalisation in evaluation mode. Running statistics are used, not updated.
        dropout: the dropout probability everywhere; null keeps the network's own.
    """

    name: str = "fast-mobilenetv2"
    mpi_position: str | None = None
    fill: str | None = None
    views: int | None = None
    boundary: str | None = None
    mask_source: str | None = None
    foreground_classes: int | None = None
    pretrained: str | None = None
    start_from: str | None = None
    train_only: Literal["kinds"] | None = None
    input_height: int = 256
    freeze_batch_norm: bool = False
    dropout: float | None = None


@dataclass(frozen=True)
class SourceConfig:
    """One dataset, for training or validation.

    Attributes:
        dataset: its layout.
        root: its folder; null takes data.roots of this dataset.
        split: of Cityscapes and the synthetic street.
        share: of every batch, relative to the other training sources.
        pasted: share of the training samples that get foreground pasted from other images of the set. In validation 1
            pastes onto every image, 0 onto none; then a Cityscapes that has gt_manual/<split> is measured on its
            manually annotated images.
        limit: use at most this many images, evenly spread over the set; null uses all.
        drives: of the synthetic street: this many drives.
        frames: of the synthetic street: this many frames in each drive.
        seed: of the synthetic street: number of the first drive.
        true_background: for training, use what the set knows behind its objects; objects that are pasted are not
            meant. See also data.true_background, which is for all sources.
    """

    dataset: Literal["cityscapes", "kitti", "folder", "synthetic"] = "cityscapes"
    root: str | None = None
    split: str = "train"
    share: float = 1.0
    pasted: float = 0.0
    limit: int | None = None
    drives: int = 8
    frames: int = 100
    seed: int = 0
    true_background: bool = True


@dataclass(frozen=True)
class DataConfig:
    """What is trained and validated on.

    Attributes:
        roots: dataset -> folder, for the sources that name no root of their own.
        train: name -> source. Every batch mixes them by their shares.
        validation: name -> source. The first one chooses the best checkpoint.
        batch_size: of one optimizer step, over all devices and accumulated parts together.
        accumulate: the batch is computed in this many parts, one after the other.
        true_background: train on the true background behind objects where it is known (pasted, synthetic,
            folders with background/).
        workers: processes that prepare samples, per device; null chooses by the machine.
        validation_batch_size: images per validation batch and device.
        cache: ram keeps every image decoded in memory that the workers share, none reads it every time. The training is
            the same.
        cache_gigabytes: the most that the cache takes, in each training process. What does not fit is read every time.
        augment_on: cpu: sample by sample in the workers; device: a batch at a time where the network is
            (experimental). The same is drawn for every sample; results differ by rounding and in the pattern of noise.
    """

    roots: dict[str, str] = field(default_factory=dict)
    train: dict[str, SourceConfig] = field(default_factory=dict)
    validation: dict[str, SourceConfig] = field(default_factory=dict)
    batch_size: int = 8
    accumulate: int = 1
    true_background: bool = True
    workers: int | None = None
    validation_batch_size: int = 4
    cache: Literal["none", "ram"] = "none"
    cache_gigabytes: float = 8.0
    augment_on: Literal["cpu", "device"] = "cpu"


@dataclass(frozen=True)
class AugmentationOptions:
    """How training samples are varied: ranges and probabilities. The defaults change nothing.

    Attributes:
        crop: height and width of the result in pixels; null keeps the image as it is (no geometry but flips).
        scale: bounds of the zoom, drawn log-uniformly.
        stretch: bounds of the additional horizontal zoom, drawn log-uniformly.
        flip: probability of a horizontal flip.
        photometric: probability that the following six are applied at all.
        brightness, contrast, saturation: the factor is uniform in 1 - x .. 1 + x.
        hue: rotation of the colour circle, uniform in -x .. x turns.
        gamma: the exponent is log-uniform in 1/(1 + x) .. 1 + x.
        white_balance: every channel's gain is uniform in 1 - x .. 1 + x.
        plain_walls: probability that plain walls and billboards are painted over pixels of "other", whose labels stay
            (`training.data.plain_walls`).
        shadow: probability that shadows are cast. A building's edge, or the dapples of a tree.
        grayscale, overexposure, sharpen, blur, noise, jpeg: its probability.
    """

    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    stretch: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    photometric: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gamma: float = 0.0
    white_balance: float = 0.0
    plain_walls: float = 0.0
    shadow: float = 0.0
    grayscale: float = 0.0
    overexposure: float = 0.0
    sharpen: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0


@dataclass(frozen=True)
class FakeMaskConfig:
    """Random shapes added to the foreground mask right before MPI.

    Attributes:
        count: shapes per image; 0 trains without fake masks.
        sizes: bounds of a rectangle's height and width, as a share of the image's. A silhouette keeps its proportions:
            of the larger of both.
        shape: rectangles, or silhouettes of objects in images of the source with the largest share. Where there are
            none, rectangles.
    """

    count: int = 3
    sizes: tuple[float, float] = (0.1, 0.4)
    shape: Literal["rectangles", "silhouettes"] = "rectangles"


@dataclass(frozen=True)
class LossOptions:
    """What the sum of the two losses is made of. The defaults are the paper's equation 1 with the released weights.

    Attributes:
        class_weights: weights of road, sidewalk, other in the background loss; null makes them equal.
        background_weight: factor of the background term in the sum.
        foreground_weight: factor of the foreground term in the sum.
        mask_overlap: an extra term that rewards the overlap of mask and truth as a whole.
        mask_overlap_weight: factor of that term.
        hidden_weight: extra weight of background pixels whose class is known although they are hidden. They lie under
            a fake mask, behind a pasted object, or behind an object of the synthetic street.
        border_weight: extra weight of background pixels near another background class, 4 pixels at 256 high.
        hard_fraction: share of the valid background pixels of every image that counts, the hardest first.
        foreground_hard_fraction: share of the pixels of every image that are not foreground that counts in the
            foreground loss, the hardest first. Walls taken for lorries are such, sky is not.
        doubtful_border: leave unlabeled pixels this close to foreground out of the foreground loss, in pixels. 0
            leaves nothing out.
        kind_weight: factor of the term that tells kinds of objects apart, in networks that do.
    """

    class_weights: tuple[float, float, float] | None = PAPER_CLASS_WEIGHTS
    background_weight: float = 1.0
    foreground_weight: float = 1.0
    mask_overlap: Literal["none", "dice"] = "none"
    mask_overlap_weight: float = 1.0
    hidden_weight: float = 1.0
    border_weight: float = 1.0
    hard_fraction: float = 1.0
    foreground_hard_fraction: float = 1.0
    doubtful_border: int = 0
    kind_weight: float = 1.0


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights move.

    Attributes:
        name: Adam couples weight decay to the gradient (L2), AdamW does not.
        encoder_rate: learning rate of the pretrained encoder.
        head_rate: learning rate of everything else.
        betas: of Adam.
        weight_decay: of Adam or AdamW.
        decay_vectors: decay biases and normalisation parameters too.
        clip_norm: largest gradient norm; null does not clip.
        ema_decay: of the moving average of weights that is validated and exported; 0 averages nothing.
    """

    name: Literal["adam", "adamw"] = "adamw"
    encoder_rate: float = 2e-4
    head_rate: float = 8e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    decay_vectors: bool = False
    clip_norm: float | None = 2.0
    ema_decay: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and how the learning rate falls. Exactly one of steps, epochs and minutes is given.

    Attributes:
        steps: optimizer steps.
        epochs: passes over the largest training source's share.
        minutes: the whole run ends within this time, its last validation and export included. Steps are planned from
            the measured speed, and the rate falls to its end with them. A resumed run uses what is left of the time.
        validate_every: steps between validations. Null means an epoch, or the whole run if that is shorter; with
            minutes: only at the end.
        decay: polynomial, (1 - step/steps)^power; staircase, x0.1 every staircase_epochs; or constant.
        power: of the polynomial decay.
        staircase_epochs: epochs between two falls of the staircase.
        warmup_steps: steps over which the rate rises linearly from zero.
    """

    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    validate_every: int | None = None
    decay: Literal["polynomial", "staircase", "constant"] = "polynomial"
    power: float = 0.9
    staircase_epochs: int = 20
    warmup_steps: int = 0


@dataclass(frozen=True)
class RunConfig:
    """Where and how it runs.

    Attributes:
        accelerator: auto takes GPUs where there are any.
        devices: per machine; null uses all GPUs, or one CPU process (torchrun decides where it is used).
        nodes: machines.
        precision: auto is bfloat16 on a GPU that has it, else float32. On a CPU bfloat16 needs AVX-512 that has it.
        compile: let torch.compile generate the code of the network's training pass (experimental). It takes a minute
            at the start.
        deterministic: take reproducible operations on a GPU where PyTorch has them. It warns where there is none, as
            for the pyramid's pooling; slower. A CPU always is reproducible.
        checkpoint_every: steps between two saves of last.ckpt; null saves only at validations.
        log_every: steps between two lines of the training log.
        pictures: validation images drawn per validation into TensorBoard.
        loggers: any of csv and tensorboard.
        monitor: the score of the first validation set that chooses the best checkpoint.
        export: which weights become the product checkpoint: best, of the validation that run.monitor chooses, or last.
        half: store the product checkpoint in float16.
        training_data: the note on training data and its licence in the product checkpoint. With network.train_only an
            empty one is that of start_from.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | None = None
    nodes: int = 1
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    deterministic: bool = False
    checkpoint_every: int | None = 200
    log_every: int = 10
    pictures: int = 4
    loggers: tuple[Literal["csv", "tensorboard"], ...] = ("csv", "tensorboard")
    monitor: str = "foreground_region_miou"
    export: Literal["best", "last"] = "best"
    half: bool = True
    training_data: str = ""


@dataclass(frozen=True)
class Configuration:
    """Everything that decides a run.

    Attributes:
        output: the run's folder.
        seed: decides every random number.
    """

    output: str = "out/training/run"
    seed: int = 0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    fake_masks: FakeMaskConfig = field(default_factory=FakeMaskConfig)
    losses: LossOptions = field(default_factory=LossOptions)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    run: RunConfig = field(default_factory=RunConfig)


def load(path: str | Path, overrides: Iterable[str] = ()) -> Configuration:
    """Read a YAML file and apply `section.key=value` overrides, in order; values are YAML too.

    `section.name=null` removes an entry of a mapping (`data.train.synthetic=null`).

    Raises:
        ConfigurationError: the file cannot be read, or a key or value is not understood.
    """
    path = Path(path)
    try:
        tree = yaml_text.parse(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path} must hold a mapping of sections, found {type(tree).__name__}")
    for override in overrides:
        _apply(tree, override)
    configuration = _build(Configuration, tree, "")
    _check(configuration)
    return configuration


def as_dictionary(configuration: Configuration) -> dict[str, Any]:
    """Return the configuration as plain mappings, lists and scalars, for YAML, JSON and checkpoints."""
    return json.loads(json.dumps(dataclasses.asdict(configuration)))


def from_dictionary(tree: dict[str, Any]) -> Configuration:
    """Return the configuration of `as_dictionary`.

    Raises:
        ConfigurationError: a key or value is not understood.
    """
    return _build(Configuration, tree, "")


def fingerprint(configuration: Configuration) -> str:
    """Return a short hash of everything that influences the result (the output folder and the cache do not)."""
    tree = as_dictionary(configuration)
    tree.pop("output")
    for key in ("cache", "cache_gigabytes"):
        tree["data"].pop(key)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def closest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is spelled most like `word`."""
    names, parts = list(known), set(word.split("_"))
    longer = [name for name in names if parts <= set(name.split("_"))]  # a word was left out
    return difflib.get_close_matches(word, longer or names, n=1, cutoff=0.0)[0]


def describe() -> str:
    """List every key with its type, its default and one line on what it is, section by section."""
    lines = []
    for key, kind, default, text in _described(Configuration, ""):
        if kind is None:
            lines += ["", f"{key}: {text}" if key else text]
        else:
            lines.append(f"  {key}: {kind} = {default}\n        {text}")
    return "\n".join(lines)


def _described(section: type, where: str) -> Iterator[tuple[str, str | None, str, str]]:
    """Key, type, default and description of each field; the section itself, without a type, comes first."""
    documentation = inspect.getdoc(section) or ""
    yield where, None, "", _first_sentence(documentation)
    texts = {
        name: _first_sentence(match[2])
        for match in re.finditer(r"^    (\w+(?:, \w+)*): ((?:.|\n {8})*)", documentation, re.MULTILINE)
        for name in match[1].split(", ")
    }
    hints, nested = typing.get_type_hints(section), []
    for entry in dataclasses.fields(section):
        kind, key = hints[entry.name], _join(where, entry.name)
        if dataclasses.is_dataclass(kind):
            nested.append((kind, key))
            continue
        default = entry.default_factory() if entry.default is dataclasses.MISSING else entry.default
        shown = "null" if default is None else json.dumps(default, ensure_ascii=False)
        yield key, _type_name(kind), shown.strip('"') or '""', texts[entry.name]
    for kind, key in nested:
        yield from _described(kind, key)
    if section is DataConfig:
        yield from _described(SourceConfig, f"{where}.train.NAME")


def _first_sentence(text: str) -> str:
    return " ".join(re.split(r"\n\n|(?<=[^.])\.(?:\s|$)", text)[0].split())


def _type_name(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if option is type(None) else _type_name(option) for option in arguments)
    if origin is Literal:
        return "|".join(arguments)
    if origin is dict:
        return f"{{name: {'source' if arguments[1] is SourceConfig else _type_name(arguments[1])}}}"
    if origin is tuple:
        return f"[{', '.join('...' if option is Ellipsis else _type_name(option) for option in arguments)}]"
    return {float: "number", int: "whole number", bool: "true|false", str: "text"}[kind]


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigurationError(f"override {override!r} must read section.key=value")
    *parents, last = key.split(".")
    for parent in parents:
        child = tree.get(parent)
        if child is None:
            child = tree[parent] = {}
        if not isinstance(child, dict):
            raise ConfigurationError(f"override {override!r}: {parent} is a value, not a section")
        tree = child
    try:
        tree[last] = yaml_text.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"override {override!r}: the value is not valid YAML: {error}") from error


def _build(kind: type, tree: Any, where: str) -> Any:
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{where or 'the configuration'} must be a section, got {tree!r}")
    hints = typing.get_type_hints(kind)
    for key in tree:
        if key not in hints:
            near = _join(where, closest(str(key), hints))
            raise ConfigurationError(
                f"unknown key {_join(where, key)!r}: did you mean {near!r}? (known here: {', '.join(hints)})"
            )
    return kind(**{key: _convert(hints[key], value, _join(where, key)) for key, value in tree.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`: dataclasses, optionals, literals, dicts, tuples and scalars."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), {} if value is None else value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(option for option in arguments if option is not type(None)), value, where)
    if origin is Literal:
        choice = str(value) if all(isinstance(option, str) for option in arguments) else value
        if choice in arguments:
            return choice
        raise ConfigurationError(f"{where} must be one of {', '.join(map(str, arguments))}, got {value!r}")
    if origin is dict:
        if not isinstance(value, dict | None):
            raise ConfigurationError(f"{where} must be a mapping, got {value!r}")
        entries = {str(key): entry for key, entry in (value or {}).items() if entry is not None}
        return {key: _convert(arguments[1], entry, _join(where, key)) for key, entry in entries.items()}
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    return _scalar(kind, value, where)


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigurationError(f"{where} must be a list, got {value!r}")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ConfigurationError(f"{where} must hold {len(arguments)} values, got {value!r}")
    return tuple(_convert(kind, entry, where) for kind, entry in zip(arguments, value, strict=True))


def _scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            if math.isfinite(number := float(value)):  # YAML reads 1e-4 as a string
                return number
    elif kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    elif type(value) is kind:
        return value
    raise ConfigurationError(f"{where} must be {_KIND_NAMES[kind]}, got {value!r}")


_KIND_NAMES = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def _check(configuration: Configuration) -> None:
    """Contradictions that would otherwise show after minutes."""
    data, schedule = configuration.data, configuration.schedule
    if not data.train:
        raise ConfigurationError("data.train names no source: give at least one dataset to train on")
    if not data.validation:
        raise ConfigurationError("data.validation names no source: give at least one dataset to validate on")
    if sum(length is not None for length in (schedule.steps, schedule.epochs, schedule.minutes)) != 1:
        raise ConfigurationError(
            "give exactly one of schedule.steps, schedule.epochs and schedule.minutes; set the others to null"
        )
    for key in ("steps", "epochs", "minutes", "validate_every"):
        value = getattr(schedule, key)
        if value is not None and value <= 0:
            raise ConfigurationError(f"schedule.{key} must be positive, got {value}")
    for section, sources in (("train", data.train), ("validation", data.validation)):
        for name, source in sources.items():
            if source.dataset != "synthetic" and not (source.root or data.roots.get(source.dataset)):
                raise ConfigurationError(
                    f"data.{section}.{name} has no folder: set data.{section}.{name}.root "
                    f"or data.roots.{source.dataset}"
                )
    for name, source in data.train.items():
        if source.dataset == "kitti" and "kitti_dev" in str(source.root or data.roots["kitti"]):
            raise ConfigurationError(f"data.train.{name} is kitti_dev, which is for testing only")
    if data.batch_size % data.accumulate:
        raise ConfigurationError(
            f"data.batch_size={data.batch_size} cannot be split into data.accumulate={data.accumulate} parts"
        )
    if data.cache_gigabytes <= 0:
        raise ConfigurationError("data.cache_gigabytes must be positive; data.cache=none keeps nothing in memory")
    if configuration.network.train_only and configuration.network.start_from is None:
        raise ConfigurationError("network.train_only needs weights to leave as they are: set network.start_from")
    if (border := configuration.losses.doubtful_border) < 0:
        raise ConfigurationError(f"losses.doubtful_border is in pixels, 0 leaves nothing out; got {border}")
    if (weight := configuration.losses.border_weight) < 0:
        raise ConfigurationError(f"losses.border_weight is a factor, 1 changes nothing; got {weight:g}")
    if not 0 < (share := configuration.losses.foreground_hard_fraction) <= 1:
        raise ConfigurationError(
            f"losses.foreground_hard_fraction is a share above 0, 1 leaves nothing out; got {share:g}"
        )
    if configuration.run.log_every < 1:
        raise ConfigurationError("run.log_every must be at least 1; run.loggers=[] logs nothing")
    if configuration.run.devices is not None and configuration.run.devices < 1:
        raise ConfigurationError("run.devices must be at least 1")


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
