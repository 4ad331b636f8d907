"""The paper's tables, and our own, by command: `python training/experiments.py table3 --scale smoke`.

A table is a list of rows, a row a few settings on top of one file of `config/training`. Each row's configuration is
trained once, in a folder named by the hash of its settings, so runs are shared between tables and skipped when they
are finished; a stopped one is continued. Printed is the mean over the last five epochs, as in the paper, beside the
paper's number where it is known. With several seeds it is the mean over them and their spread, and what the paper
claims of the table is held against them.
"""

from __future__ import annotations

import argparse
import math
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rich.table
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from training import train
from training.configuration import Configuration, ConfigurationError, fingerprint, load
from training.data.datasets import DatasetError
from training.data.sample import collate
from training.data.sources import validation_set
from training.drives import DriveSet, learn_from_drives
from training.learning.checkpoints import BEST, LAST, PRODUCT, SCORES, ScoreLog
from training.learning.devices import build_fabric
from training.learning.health import NonFiniteLoss
from training.learning.network import build_network
from training.learning.signals import Interrupted
from training.learning.validation import validate
from training.measuring.claims import Claim, examine

CONFIGURATIONS = Path(__file__).resolve().parents[1] / "config" / "training"
SCORE_COLUMNS = {
    "foreground_region_miou": "foreground region mIoU",
    "all_region_miou": "all region mIoU",
    "foreground_mask_iou": "mask IoU",
}

DESCRIPTION = """\
Train and print one of the paper's tables (Lu & Dubbelman, RA-L 2020), or one of ours.

  table1   two-stage baseline against the single stage, ResNet-18 and -50, mask predicted or given; Cityscapes
  table2   the same networks, trained on Cityscapes, on KITTI
  table3   where max-pooling as inpainting (MPI) sits: image, block 2, block 4, logits
  table4   MPI against blacking out, with and without fake masks, at two resolutions
  ablations   the default recipe, and what each of its choices is worth: one thing less, or other, in each row
  quickstart-comparison   the quickstart recipe against blacking out without fake masks, and the untrained network
  drives      few annotated streets, with and without what unlabelled drives show behind objects (docs/map.md)
"""

EXAMPLES = """\
examples:
  python training/experiments.py table3 --scale smoke
  python training/experiments.py table4 --scale tiny --seeds 3 data.roots.cityscapes=DATA/cityscapes
  python training/experiments.py table1 --list data.roots.cityscapes=DATA/cityscapes
  python training/experiments.py table2 --scale full \\
      data.roots.cityscapes=DATA/cityscapes data.roots.kitti=DATA/kitti run.precision=bfloat16
"""


FIRST = "{first}"
DRIVES = f"{FIRST}/drives"


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is called, which settings make it, and what the paper reports for it.

    Attributes:
        label: one text for each of the table's headings.
        overrides: settings on top of the table's configuration; `FIRST` in them is the folder of the table's first
            run, and `DRIVES` a dataset in it that its network makes of drives.
        paper: score -> the paper's number, only where it is known for sure.
        trained: False measures the network as it is initialised.
    """

    label: tuple[str, ...]
    overrides: tuple[str, ...]
    paper: tuple[tuple[str, float], ...] = ()
    trained: bool = True


@dataclass(frozen=True)
class Table:
    """Rows to train and how to show them.

    Attributes:
        title: what it compares.
        headings: of the columns of `Row.label`.
        rows: in print order.
        configuration: file in config/training that all rows start from.
        validation: number of the validation set that is shown.
        average: validations at the end of a run over which the scores are averaged.
        paper_networks: whether the rows are the paper's own networks, which have settings of their own.
        claims: what the paper says of it.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    configuration: str = "paper.yaml"
    validation: int = 0
    average: int = 5
    paper_networks: bool = False
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Scale:
    """How much of a table is computed.

    Attributes:
        single_stage: the network of tables 3 and 4.
        heights: the two image heights of table 4; tables 1 to 3 use the second.
        settings: file in config/training -> settings for every table that starts from it, behind those of the row.
        paper_networks: further ones for tables 1 and 2, whose networks are the paper's and large; None puts
            `single_stage` in their place.
        comparable: whether the paper's numbers may stand beside ours.
        drives: that are learned from in the table of that name.
    """

    single_stage: str
    heights: tuple[int, int]
    settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    paper_networks: tuple[str, ...] | None = ()
    comparable: bool = False
    drives: DriveSet = field(default_factory=DriveSet)


_TWO_STEPS = (
    "network.pretrained=null",
    "network.input_height=32",
    "augmentation.crop=[32, 64]",
    "data.batch_size=2",
    "data.workers=0",
    "schedule.steps=2",
    "schedule.validate_every=1",
    "schedule.warmup_steps=0",
    "run.accelerator=cpu",
    "run.loggers=[]",
)
SCALES = {
    "smoke": Scale(
        single_stage="fast-mobilenetv2",
        heights=(32, 64),
        settings={
            "paper.yaml": (
                "network.pretrained=null",
                "data.train={street: {dataset: synthetic, split: train, drives: 1, frames: 8}}",
                "data.validation={street: {dataset: synthetic, split: val, drives: 1, frames: 3}}",
                "data.batch_size=4",
                "data.workers=0",
                "optimizer.encoder_rate=1e-3",
                "optimizer.head_rate=1e-3",
                "schedule.epochs=5",
                "run.accelerator=cpu",
                "run.loggers=[]",
            ),
            "quickstart.yaml": (
                *_TWO_STEPS,
                "data.train={street: {dataset: synthetic, split: train, drives: 1, frames: 4}}",
                "data.validation={street: {dataset: synthetic, split: val, drives: 1, frames: 2}}",
            ),
            "default.yaml": (
                *_TWO_STEPS,
                "data.train={street: {dataset: synthetic, split: train, drives: 1, frames: 4, pasted: 0.5}}",
                "data.validation={street: {dataset: synthetic, split: val, drives: 1, frames: 2, pasted: 1.0}}",
            ),
            "drives.yaml": (
                *_TWO_STEPS,
                "data.train.street.drives=1",
                "data.train.street.frames=4",
                "data.validation.street.drives=1",
                "data.validation.street.frames=2",
                "optimizer.ema_decay=0",
                "schedule.steps=15",  # fewer, and the network sees nothing but one class, from which nothing is learned
                "schedule.validate_every=15",
            ),
        },
        drives=DriveSet(drives=2, frames=3, height=32),
        paper_networks=(
            "network.input_height=32",
            "data.train.street.frames=2",
            "data.validation.other_street={dataset: synthetic, split: test, drives: 1, frames: 2}",
            "data.batch_size=2",
            "schedule.epochs=1",
        ),
    ),
    "tiny": Scale(
        single_stage="fast-mobilenetv2",
        heights=(64, 128),
        settings={
            "paper.yaml": (
                "data.train.cityscapes.limit=250",
                "data.validation={manual: {dataset: cityscapes, split: val}}",
                "schedule.epochs=8",
                "schedule.staircase_epochs=4",
                "run.loggers=[csv]",
            ),
            "default.yaml": (
                "network.input_height=128",
                "augmentation.crop=[128, 256]",
                "data.validation.cityscapes_pasted.limit=250",
                "schedule.steps=600",
                "schedule.validate_every=600",
                "run.loggers=[csv]",
            ),
            "drives.yaml": (
                "network.input_height=64",
                "augmentation.crop=[64, 128]",
                "schedule.steps=250",
                "schedule.validate_every=250",
                "run.accelerator=cpu",
                "run.loggers=[csv]",
            ),
        },
        drives=DriveSet(drives=12, frames=24),
        paper_networks=None,
    ),
    "full": Scale(single_stage="paper-resnet18", heights=(128, 256), comparable=True),
}


_MPI = ("network.mpi_position=block2", "network.fill=mpi", "network.mask_source=predicted")
"""What a row of the paper leaves as it is, spelled out: equal runs of different tables have equal settings."""


def small_network_rows(name: str, *, given: bool) -> tuple[Row, ...]:
    """Two stages and one of a fast network, with predicted and maybe with given masks.

    Two stages: the image is blacked out by the network's own mask, and runs through it once more.
    """
    rows = []
    for stages, own in (("two-stage", ("network.mpi_position=image", "network.fill=zero")), ("single stage", ())):
        for mask in ("predicted", "given") if given else ("predicted",):
            settings = (f"network.name={name}", *_MPI, f"network.mask_source={mask}", *own)
            rows.append(Row((stages, name.removeprefix("fast-"), mask), settings))
    return tuple(rows)


def stage_claims(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Return that one stage is better than two, for each encoder and kind of mask."""
    return tuple(
        Claim(f"one stage is better than two ({row.label[1]}, {row.label[2]} mask)", row.label, other.label)
        for row in rows
        for other in rows
        if row.label[0] == "single stage" and other.label == ("two-stage", *row.label[1:])
    )


def network_rows(*, given: bool) -> tuple[Row, ...]:
    """Both architectures on both encoders, with predicted and maybe with given masks."""
    # Trained on Cityscapes, tested on KITTI; as the paper reports. Nothing else is known for sure.
    known = {
        "paper-resnet18": (("foreground_region_miou", 39.2), ("all_region_miou", 59.4)),
        "paper-resnet50": (("foreground_region_miou", 45.3), ("all_region_miou", 61.1)),
    }
    rows = []
    for encoder, batch in (("resnet18", 8), ("resnet50", 4)):
        for stages in ("two-stage", "paper"):
            for mask in ("predicted", "given") if given else ("predicted",):
                name = f"{stages}-{encoder}"
                overrides = [*_MPI, f"network.name={name}", f"network.mask_source={mask}", f"data.batch_size={batch}"]
                if stages == "two-stage":
                    overrides += ["network.mpi_position=image", "network.fill=zero"]
                label = ("two-stage" if stages == "two-stage" else "single stage", encoder, mask)
                rows.append(Row(label, tuple(overrides), () if given else known.get(name, ())))
    return tuple(rows)


def ablation_rows() -> tuple[Row, ...]:
    """Return the default recipe, the same with another seed (what chance does to a row), and one change in each."""
    changes = (
        "seed=1",
        "losses.class_weights=null",
        "losses.mask_overlap=none",
        "losses.hidden_weight=1",
        "losses.doubtful_border=0",
        "losses.border_weight=1",
        "losses.hard_fraction=0.5",
        "fake_masks.count=0",
        "fake_masks.shape=rectangles",
        "data.true_background=false",
        "data.train.cityscapes.pasted=0",
        "data.train.synthetic=null",
        "network.fill=zero",
        "augmentation.shadow=0 augmentation.sharpen=0",
        "augmentation.plain_walls=0",
        "augmentation.photometric=0 augmentation.blur=0 augmentation.noise=0 augmentation.jpeg=0",
        "augmentation.scale=[1,1] augmentation.stretch=[1,1]",
        "optimizer.ema_decay=0",
        "network.pretrained=null",
    )
    return (Row(("nothing",), ()), *(Row((change,), tuple(change.split())) for change in changes))


def drive_rows() -> tuple[Row, ...]:
    """Annotated streets alone, and what goes on from there: with these, drives, what drives showed, or the truth."""
    go_on = f"network.start_from={FIRST}/{PRODUCT}"
    drives = "data.train.drives={{dataset: folder, root: {}, true_background: {}}}"
    return (
        Row(("annotated streets",), ()),
        Row(("as long again on the same",), (go_on,)),
        Row(("with drives, what is seen labelled by the network",), (go_on, drives.format(DRIVES, "false"))),
        Row(("and what the drives showed behind objects",), (go_on, drives.format(DRIVES, "true"))),
        Row(("annotated streets, with the truth behind objects",), (go_on, "data.train.street.true_background=true")),
    )


def table(name: str, scale: Scale) -> Table:
    """Return the table of that name."""
    low, high = scale.heights
    one = (f"network.name={scale.single_stage}", *_MPI)
    if name in ("table1", "table2"):
        of_paper, given = scale.paper_networks is not None, name == "table1"
        rows = network_rows(given=given) if of_paper else small_network_rows(scale.single_stage, given=given)
        return Table(
            "Table I: two stages or one" if given else "Table II: trained on Cityscapes, tested on KITTI",
            ("network", "encoder", "mask"),
            _at(high, rows),
            validation=0 if given else 1,
            paper_networks=of_paper,
            claims=stage_claims(rows),
        )
    if name == "table3":
        positions = ("image", "block2", "block4", "logits")
        rows = tuple(Row((position,), (*one, f"network.mpi_position={position}")) for position in positions)
        others = ("image", "block4", "logits")
        claims = tuple(Claim(f"MPI at block 2 is better than at {other}", ("block2",), (other,)) for other in others)
        return Table("Table III: where MPI sits", ("MPI at",), _at(high, rows), claims=claims)
    if name == "table4":
        rows, claims = (), ()
        for height in (low, high):
            images = f"{height} high"
            for fake in (0, 3):
                fakes = "yes" if fake else "no"
                for fill in ("zero", "mpi"):
                    label = (images, fakes, "MPI" if fill == "mpi" else "blacked out")
                    settings = (*one, f"network.fill={fill}", f"fake_masks.count={fake}")
                    rows += _at(height, (Row(label, settings),))
                better, worse = ((images, fakes, filled) for filled in ("MPI", "blacked out"))
                claims += (Claim(f"MPI is better than blacking out ({images}, fake masks: {fakes})", better, worse),)
            better, worse = ((images, fakes, "MPI") for fakes in ("yes", "no"))
            claims += (Claim(f"fake masks help MPI ({images})", better, worse),)
        headings = ("images", "fake masks", "filled with")
        return Table("Table IV: MPI, fake masks, resolution", headings, rows, claims=claims)
    if name == "ablations":
        title = "Ablations: the default recipe, one thing changed in each row"
        return Table(title, ("changed",), ablation_rows(), configuration="default.yaml", average=1)
    if name == "drives":
        title = "Drives: what unlabelled ones teach about the background behind objects"
        return Table(title, ("trained on",), drive_rows(), configuration="drives.yaml", average=1)
    return Table(
        "Quickstart: what MPI and fake masks are good for",
        ("", "filled with", "fake masks"),
        (
            Row(("untrained", "MPI", "-"), (), trained=False),
            Row(("trained", "blacked out", "no"), ("network.fill=zero", "fake_masks.count=0")),
            Row(("trained", "MPI", "yes"), ()),
        ),
        configuration="quickstart.yaml",
        average=1,
    )


TABLE_NAMES = ("table1", "table2", "table3", "table4", "ablations", "quickstart-comparison", "drives")


def _at(height: int, rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(replace(row, overrides=(*row.overrides, f"network.input_height={height}")) for row in rows)


def configure(wanted: Table, row: Row, scale: Scale, extra: Sequence[str]) -> Configuration:
    """Return the configuration of a row.

    Raises:
        ConfigurationError: a setting is not understood, or the table needs a dataset that was not given.
    """
    smaller = scale.settings.get(wanted.configuration, ())
    if wanted.paper_networks:
        smaller += scale.paper_networks or ()
    overrides = [*row.overrides, *smaller, *extra, "run.devices=1"]
    configuration = load(CONFIGURATIONS / wanted.configuration, overrides)
    of_paper = wanted.configuration == "paper.yaml"
    if of_paper and "kitti" in configuration.data.roots and len(configuration.data.validation) == 1:
        overrides.append("data.validation.kitti={dataset: kitti}")  # in every table: the runs are shared
        configuration = load(CONFIGURATIONS / wanted.configuration, overrides)
    if wanted.validation >= len(configuration.data.validation):
        raise ConfigurationError("this table is measured on KITTI: add data.roots.kitti=FOLDER")
    return configuration


def folder_of(configuration: Configuration, root: Path) -> Path:
    """Where a configuration's run lies: in its own output folder if it has been trained there, else below `root`."""
    own = Path(configuration.output)
    if (own / "config.yaml").is_file():
        try:
            if fingerprint(load(own / "config.yaml", ["run.devices=1"])) == fingerprint(configuration):
                return own
        except ConfigurationError:
            pass  # written by another version
    network = configuration.network
    fakes = f"{configuration.fake_masks.count}-fake-masks"
    options = [option for option in (network.fill, network.mpi_position, network.mask_source) if option is not None]
    words = (network.name, *options, network.input_height, fakes)
    return root / "-".join(map(str, (*words, fingerprint(configuration)[:8])))


def ensure_trained(configuration: Configuration, folder: Path, *, keep_checkpoints: bool = False) -> None:
    """Trains a configuration unless it is finished; continues it if it was stopped."""
    if (folder / PRODUCT).is_file():
        return
    started = (folder / LAST).is_file()
    train.run(replace(configuration, output=str(folder)), resume="last" if started else None)
    if not keep_checkpoints:
        for name in (LAST, BEST):
            (folder / name).unlink(missing_ok=True)


def averaged_scores(folder: Path, validation: str, average: int) -> tuple[dict[str, float], int]:
    """Return the mean of each score over a run's last validations (nan where there is none), and over how many."""
    rows = [row["scores"][validation] for row in ScoreLog(folder / SCORES).read()[-average:]]
    scores = {}
    for score in SCORE_COLUMNS:
        values = [row[score] for row in rows if row[score] is not None]
        scores[score] = statistics.fmean(values) if values else math.nan
    return scores, len(rows)


def untrained_scores(configuration: Configuration) -> dict[str, float]:
    """Scores of the first validation set with the network as it is initialised."""
    torch.manual_seed(configuration.seed)
    network = build_network(configuration.network).eval()
    name, source = next(iter(configuration.data.validation.items()))
    dataset = validation_set(configuration, source, None)
    loader = DataLoader(dataset, batch_size=1, collate_fn=collate)
    scores = validate(build_fabric(configuration.run), network, {name: loader})[name]
    return {score: scores[score] for score in SCORE_COLUMNS}


def _first_folder(wanted: Table, scale: Scale, extra: Sequence[str], root: Path) -> Path:
    """Return the folder of the table's first run."""
    return folder_of(configure(wanted, wanted.rows[0], scale, extra), root).resolve()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds must be 1 or more, got {options.seeds}")
    scale, root = SCALES[options.scale], Path(options.output) / options.scale
    wanted, console = table(options.table, scale), Console()
    results: list[tuple[Row, list[dict[str, float]] | str]] = []
    averaged = 0
    try:
        seeds = [
            [*options.overrides, *([f"seed={seed}"] if options.seeds > 1 else [])] for seed in range(options.seeds)
        ]
        first = _first_folder(wanted, scale, seeds[0], root)
        rows = [
            replace(row, overrides=tuple(text.replace(FIRST, str(first)) for text in row.overrides))
            for row in wanted.rows
            if options.seeds == 1 or not any(text.startswith("seed=") for text in row.overrides)  # the spread says it
        ]
        wanted = replace(wanted, rows=tuple(rows))
        runs = [(row, [configure(wanted, row, scale, overrides) for overrides in seeds]) for row in wanted.rows]
        if options.list:
            _print_runs(console, runs, root)
            return 0
        for number, (row, configurations) in enumerate(runs, start=1):
            console.print(f"[bold]{number}/{len(runs)}[/] {', '.join(filter(None, row.label))}")
            if not row.trained:
                results.append((row, [untrained_scores(configuration) for configuration in configurations]))
                continue
            found = []
            try:
                for configuration in configurations:
                    folder = folder_of(configuration, root)
                    drives = Path(DRIVES.replace(FIRST, str(first)))
                    if any(source.root == str(drives) for source in configuration.data.train.values()):
                        learn_from_drives(first / PRODUCT, drives, scale.drives)
                    ensure_trained(configuration, folder, keep_checkpoints=options.keep_checkpoints)
                    validation = list(configuration.data.validation)[wanted.validation]
                    scores, averaged = averaged_scores(folder, validation, wanted.average)
                    found.append(scores)
            except NonFiniteLoss as error:
                results.append((row, str(error)))
                continue
            results.append((row, found))
    except (ConfigurationError, DatasetError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"{stop}; everything is saved, the same command continues there", flush=True)
        return 128 + stop.signal_number
    console.print(_render(wanted, results, comparable=scale.comparable))
    _print_claims(console, wanted, results)
    _print_notes(console, wanted, runs[0][1][0], averaged, options.scale)
    for row, result in results:
        if isinstance(result, str):
            console.print(f"{', '.join(row.label)}: {result}", highlight=False)
    return 1 if any(isinstance(result, str) for _, result in results) else 0


def _render(
    wanted: Table, results: Sequence[tuple[Row, list[dict[str, float]] | str]], *, comparable: bool
) -> rich.table.Table:
    shown = rich.table.Table(title=wanted.title)
    of_paper = wanted.configuration == "paper.yaml"
    for heading in wanted.headings:
        shown.add_column(heading)
    for score, heading in SCORE_COLUMNS.items():
        shown.add_column(heading, justify="right")
        if of_paper and score != "foreground_mask_iou":  # the paper does not report it
            shown.add_column("paper", justify="right", style="dim")
    for row, result in results:
        cells = list(row.label)
        for score in SCORE_COLUMNS:
            values = [] if isinstance(result, str) else [one[score] for one in result if not math.isnan(one[score])]
            paper = dict(row.paper).get(score) if comparable else None
            spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{100 * statistics.fmean(values):.1f}{spread}" if values else "-")
            if of_paper and score != "foreground_mask_iou":
                cells.append("-" if paper is None else f"{paper:.1f}")
        shown.add_row(*cells)
    return shown


def _print_claims(console: Console, wanted: Table, results: Sequence[tuple[Row, list[dict[str, float]] | str]]) -> None:
    scores = {row.label: result for row, result in results if not isinstance(result, str)}
    for claim in wanted.claims:
        console.print(f"{claim.text}: {examine(claim, scores)}", highlight=False)


def _print_notes(console: Console, wanted: Table, configuration: Configuration, averaged: int, scale: str) -> None:
    name, source = list(configuration.data.validation.items())[wanted.validation]
    what = f"{source.dataset} {source.split}" if source.dataset in ("cityscapes", "synthetic") else source.dataset
    pasted = " with pasted occluders" if source.pasted > 0 else ""
    mean = "" if averaged < 2 else f", mean of the last {averaged} validations"
    console.print(f"in per cent, on {name} ({what}{pasted}){mean}", highlight=False)
    if scale != "full" and wanted.configuration == "paper.yaml":
        console.print(f"scale {scale}: shows that and how it runs; not comparable with the paper", highlight=False)


def _print_runs(console: Console, runs: Sequence[tuple[Row, Sequence[Configuration]]], root: Path) -> None:
    for row, configuration in ((row, one) for row, several in runs for one in several):
        folder = folder_of(configuration, root)
        state = "not started"
        if not row.trained:
            folder, state = Path("-"), "not trained"
        elif (folder / PRODUCT).is_file():
            state = "finished"
        elif (folder / LAST).is_file():
            state = "stopped"
        settings = shlex.join(row.overrides)
        console.print(f"{state:12} {folder}\n{'':12} {settings}", highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="training/experiments.py",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", choices=TABLE_NAMES, help="what to train and print")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="settings of every run, as in training/train.py"
    )
    parser.add_argument(
        "--scale",
        choices=SCALES,
        default="full",
        help="smoke: a few steps on the synthetic street; tiny: eight epochs of 250 images; full: as published",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="train every row with seeds 0 to N-1 (default: one, seed 0)"
    )
    parser.add_argument("--output", default="out/experiments", metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--list", action="store_true", help="print the runs and how far they are, train nothing")
    parser.add_argument(
        "--keep-checkpoints", action="store_true", help="keep last.ckpt and best.ckpt of finished runs (large)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
