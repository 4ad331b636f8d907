"""Datasets read trees as downloaded, map ids exactly, and name the file and the remedy when something is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, shared
from torchvision.io import ImageReadMode, decode_image, encode_jpeg, write_jpeg, write_png

from training.check_data import check_dataset
from training.check_data import main as check_main
from training.configuration import SourceConfig, load
from training.data.cache import Remembered, SampleMemory
from training.data.datasets import DATASET_NAMES, Cityscapes, DatasetError, Folder, Kitti, Synthetic, open_dataset
from training.data.reading import resize_labels, resize_photo
from training.data.sample import Sample, collate
from training.data.sources import training_source
from training.evaluate import main as evaluate_main

HEIGHT = 32
IDS = torch.tensor([0, 7, 8, 11, 23, 24, 26, 33], dtype=torch.uint8)
FOREGROUND = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1], dtype=torch.uint8)
BACKGROUND = torch.tensor([255, 0, 1, 2, 2, 255, 255, 255], dtype=torch.uint8)
KINDS = torch.tensor([255, 255, 255, 255, 255, 0, 2, 1], dtype=torch.uint8)

CLASS_MAP = """
background: {road: [1], sidewalk: [2], other: [3, 4]}
foreground: [10, 11]
ignore: [0]
names: {10: person}
"""


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def stripes(values: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Ids in vertical stripes of equal width."""
    return values.repeat_interleave(width // len(values)).expand(1, height, width).contiguous()


def cityscapes_tree(root: Path, size: tuple[int, int] = (HEIGHT, 2 * HEIGHT), suffix: str = "png", images: int = 2):
    for number in range(images):
        name = f"aachen_{number:06d}_000019"
        photo = root / "leftImg8bit" / "train" / "aachen" / f"{name}_leftImg8bit.{suffix}"
        labels = root / "gtFine" / "train" / "aachen" / f"{name}_gtFine_labelIds.png"
        for path in (photo, labels):
            path.parent.mkdir(parents=True, exist_ok=True)
        (write_png if suffix == "png" else write_jpeg)(noise(*size, seed=number), str(photo))
        write_png(stripes(IDS, *size), str(labels))
    return root


def kitti_tree(root: Path, manual: bool = True):
    for number, width in enumerate((80, 72)):
        name = f"{number:06d}_10"
        for folder in ("training/image_2", "training/semantic", "gt_manual"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        write_png(noise(HEIGHT, width), str(root / "training/image_2" / f"{name}.png"))
        write_png(stripes(IDS, HEIGHT, width), str(root / "training/semantic" / f"{name}.png"))
        truth = torch.tensor([255, 0, 1, 2, 2, 0, 1, 2], dtype=torch.uint8)
        write_png(stripes(truth, HEIGHT, width), str(root / "gt_manual" / f"{name}.png"))
    if not manual:
        for path in (root / "gt_manual").iterdir():
            path.unlink()
        (root / "gt_manual").rmdir()
    return root


def folder_tree(root: Path, classes: str = CLASS_MAP):
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    (root / "classes.yaml").write_text(classes)
    write_jpeg(noise(2 * HEIGHT, 3 * HEIGHT), str(root / "images" / "hall.jpg"))
    ids = torch.tensor([0, 1, 2, 3, 10, 11], dtype=torch.uint8)
    write_png(stripes(ids, 2 * HEIGHT, 3 * HEIGHT), str(root / "labels" / "hall.png"))
    return root


def check_invariants(sample: Sample) -> None:
    """What holds for every sample of every dataset."""
    size = sample.image.shape[-2:]
    assert sample.image.dtype == torch.uint8 and sample.image.shape[0] == 3
    for labels in (sample.foreground, sample.kinds, sample.partial_background, sample.categories):
        assert labels.dtype == torch.uint8 and labels.shape == size
    assert set(sample.foreground.unique().tolist()) <= {0, 1}
    assert set(sample.partial_background.unique().tolist()) <= {0, 1, 2, 255}
    assert (sample.partial_background[sample.foreground > 0] == 255).all()
    if sample.true_background is not None:
        assert sample.true_background.dtype == torch.uint8 and sample.true_background.shape == size
        assert set(sample.true_background.unique().tolist()) <= {0, 1, 2, 255}
        # Nothing that the partial background knows is unknown to, or different in, the true one.
        known = sample.partial_background != 255
        assert torch.equal(sample.true_background[known], sample.partial_background[known])


# --- Cityscapes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_cityscapes_maps_every_id(tmp_path: Path, suffix: str) -> None:
    dataset = Cityscapes(cityscapes_tree(tmp_path, suffix=suffix), "train", height=HEIGHT)
    assert len(dataset) == 2
    sample = dataset[1]
    check_invariants(sample)
    assert sample.name == "train/aachen_000001_000019"
    assert sample.true_background is None
    assert torch.equal(sample.categories, stripes(IDS, HEIGHT, 2 * HEIGHT)[0])
    assert torch.equal(sample.foreground, stripes(FOREGROUND, HEIGHT, 2 * HEIGHT)[0])
    assert torch.equal(sample.partial_background, stripes(BACKGROUND, HEIGHT, 2 * HEIGHT)[0])
    assert torch.equal(sample.kinds, stripes(KINDS, HEIGHT, 2 * HEIGHT)[0])
    if suffix == "png":
        assert torch.equal(sample.image, noise(HEIGHT, 2 * HEIGHT, seed=1))


@pytest.mark.parametrize("size", [(64, 64), (128, 256), (16, 16)])
def test_cityscapes_is_stretched_to_two_to_one(tmp_path: Path, size: tuple[int, int]) -> None:
    sample = Cityscapes(cityscapes_tree(tmp_path, size=size), "train", height=HEIGHT)[0]
    assert sample.image.shape == (3, HEIGHT, 2 * HEIGHT)
    assert torch.equal(sample.categories, stripes(IDS, HEIGHT, 2 * HEIGHT)[0])


def test_cityscapes_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere does not exist: root must hold leftImg8bit/ and gtFine/"):
        Cityscapes(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"leftImg8bit does not exist: root must hold"):
        Cityscapes(tmp_path)
    cityscapes_tree(tmp_path)
    with pytest.raises(DatasetError, match=r"leftImg8bit/val does not exist: choose a split that is there: train"):
        Cityscapes(tmp_path, "val")
    missing = tmp_path / "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png"
    missing.unlink()
    with pytest.raises(DatasetError, match=r"aachen_000001_000019_gtFine_labelIds.png is missing \(1 of 2.*unpack"):
        Cityscapes(tmp_path, "train")


def label_of(tmp_path: Path) -> Path:
    return tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"


def test_an_unsuitable_label_file_is_named(tmp_path: Path) -> None:
    dataset = Cityscapes(cityscapes_tree(tmp_path), "train", height=HEIGHT)
    path = label_of(tmp_path)
    name = path.name

    write_png(torch.full((1, HEIGHT, 2 * HEIGHT), 77, dtype=torch.uint8), str(path))
    with pytest.raises(DatasetError, match=rf"{name}: unknown label id 77: .*labelIds.png"):
        dataset[0]
    write_png(torch.zeros(1, HEIGHT, HEIGHT, dtype=torch.uint8), str(path))
    with pytest.raises(DatasetError, match=rf"{name}: labels are 32x32 .* is 64x32: export both"):
        dataset[0]
    write_png(torch.zeros(3, HEIGHT, 2 * HEIGHT, dtype=torch.uint8), str(path))
    with pytest.raises(DatasetError, match=rf"{name}: .* one channel of ids, this one has 3: .*grey 8-bit PNG"):
        dataset[0]
    path.write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=rf"{name}: cannot read this label image"):
        dataset[0]
    assert dataset[1].name.endswith("000001_000019")


def test_a_truncated_photo_is_named(tmp_path: Path) -> None:
    dataset = Cityscapes(cityscapes_tree(tmp_path), "train", height=HEIGHT)
    photo = dataset.photos[0]
    photo.write_bytes(photo.read_bytes()[:100])
    with pytest.raises(DatasetError, match=rf"{photo.name}: cannot read this photo .*copy it again"):
        dataset[0]


def test_every_flipped_bit_of_a_label_is_an_error_that_names_it(tmp_path: Path) -> None:
    """torchvision's decoder ended the process at some of them, and with it training."""
    dataset = Cityscapes(cityscapes_tree(tmp_path), "train", height=HEIGHT)
    path = label_of(tmp_path)
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 7):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=rf"{path.name}: cannot read this label image .*copy it again"):
            dataset[0]


def test_a_damaged_label_does_not_end_a_check(tmp_path: Path) -> None:
    dataset = Cityscapes(cityscapes_tree(tmp_path), "train", height=HEIGHT)
    path = label_of(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    report = check_dataset(dataset, workers=1, quiet=True)
    assert report.images == 2
    (problem,) = report.problems
    assert path.name in problem


def test_names_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets are markup to rich, and a closing one that nothing opened ended the check."""
    root = folder_tree(tmp_path / "x[/b] [front]")
    (root / "images" / "hall.jpg").write_bytes(b"no image")
    assert check_main(["--dataset", "folder", "--root", str(root), "--height", str(HEIGHT), "--workers", "0"]) == 1
    assert "x[/b] [front]/images/hall.jpg: cannot read this photo" in capsys.readouterr().out


def test_photos_of_sixteen_bits_are_those_of_eight(tmp_path: Path) -> None:
    dataset = Cityscapes(cityscapes_tree(tmp_path), "train", height=HEIGHT)
    photo = dataset.photos[0]
    before = dataset[0].image
    eight = decode_image(str(photo), ImageReadMode.RGB).permute(1, 2, 0).numpy()
    deep = eight[..., ::-1].astype(np.uint16) * 256 + np.random.default_rng(0).integers(0, 256, eight.shape, np.uint16)
    photo.write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    assert torch.equal(dataset[0].image, before)


def test_hidden_files_are_neither_photos_nor_missed_as_labels(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "robot")
    names = [path.name for path in Folder(root, height=HEIGHT).photos]
    for folder in ("images", "labels"):
        for name in (*names, "extra.png"):
            (root / folder / f"._{Path(name).stem}.png").write_bytes(b"\0\5\x16\7" + bytes(120))
    (root / "images" / ".thumbnail.jpg").write_bytes(b"")
    (root / "images" / "folder.png").mkdir()
    assert [path.name for path in Folder(root, height=HEIGHT).photos] == names
    cityscapes = cityscapes_tree(tmp_path / "c")
    (cityscapes / "leftImg8bit/train/aachen/._aachen_000000_000019_leftImg8bit.png").write_bytes(b"")
    hidden = cityscapes / "leftImg8bit/train/.Trashes"
    hidden.mkdir()
    (hidden / "a_000000_000019_leftImg8bit.png").write_bytes(b"")
    assert len(Cityscapes(cityscapes, "train", height=HEIGHT)) == 2


def test_a_git_lfs_pointer_in_place_of_a_photo_is_said(tmp_path: Path) -> None:
    dataset = Cityscapes(cityscapes_tree(tmp_path), "train", height=HEIGHT)
    dataset.photos[0].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(DatasetError, match=rf"{dataset.photos[0].name}: .*Git LFS pointer.*git lfs pull"):
        dataset[0]


# --- KITTI ---------------------------------------------------------------------------------------------------------


def test_kitti_takes_the_manual_truth(tmp_path: Path) -> None:
    dataset = Kitti(kitti_tree(tmp_path), height=HEIGHT)
    sample = dataset[0]
    check_invariants(sample)
    assert sample.name == "000000_10"
    assert sample.true_background is not None
    behind = sample.true_background[sample.foreground > 0]
    assert behind.bincount().tolist() == [320, 320, 320]
    assert [s.image.shape[2] for s in dataset] == [80, 72]


def test_kitti_keeps_the_aspect_ratio(tmp_path: Path) -> None:
    sample = Kitti(kitti_tree(tmp_path), height=HEIGHT // 2)[0]
    assert sample.image.shape == (3, 16, 40)
    check_invariants(sample)


def test_kitti_without_manual_truth(tmp_path: Path) -> None:
    assert Kitti(kitti_tree(tmp_path, manual=False), height=HEIGHT)[0].true_background is None


def test_kitti_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"training/image_2 does not exist: .*data_semantics.zip"):
        Kitti(tmp_path)
    kitti_tree(tmp_path)
    (tmp_path / "gt_manual/000001_10.png").unlink()
    with pytest.raises(DatasetError, match=r"gt_manual/000001_10.png is missing .*complete gt_manual"):
        Kitti(tmp_path)
    write_png(torch.full((1, HEIGHT, 72), 3, dtype=torch.uint8), str(tmp_path / "gt_manual/000001_10.png"))
    with pytest.raises(DatasetError, match=r"gt_manual/000001_10.png: unknown label id 3: gt_manual has 0 road"):
        Kitti(tmp_path)[1]


# --- a folder of one's own -----------------------------------------------------------------------------------------


def test_folder_reads_its_class_map(tmp_path: Path) -> None:
    dataset = Folder(folder_tree(tmp_path / "robot"), height=HEIGHT)
    sample = dataset[0]
    check_invariants(sample)
    assert sample.image.shape == (3, 32, 48)
    assert sample.partial_background[0, ::8].tolist() == [255, 0, 1, 2, 255, 255]
    assert sample.foreground[0, ::8].tolist() == [0, 0, 0, 0, 1, 1]
    assert dataset.category_names == {10: "person", 11: "id 11"}
    assert (sample.kinds == 255).all()
    told = Folder(folder_tree(tmp_path / "told", CLASS_MAP + "kinds: {two-wheeler: [11]}\n"), height=HEIGHT)
    assert told[0].kinds[0, ::8].tolist() == [255] * 5 + [1]


def test_folder_names_an_unknown_id(tmp_path: Path) -> None:
    dataset = Folder(folder_tree(tmp_path / "robot", CLASS_MAP.replace("[10, 11]", "[10]")), height=HEIGHT)
    with pytest.raises(DatasetError, match=r"labels/hall.png: unknown label id 11: add it .*classes.yaml"):
        dataset[0]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("sidewalk: [2], ", "", "'background' must map exactly road, sidewalk, other"),
        ("foreground: [10, 11]", "foreground: 10", "'foreground' must be a list of ids"),
        ("foreground: [10, 11]", "foreground: [10, 256]", "'foreground' must be a list of ids between 0 and 255"),
        ("ignore: [0]", "ignore: [0, 3]", "id 3 is listed twice"),
        ("ignore: [0]", "void: [0]", "unknown key void"),
        ("names: {10: person}", "names: {99: person}", "'names' must map listed ids"),
        ("background:", "background: [", "not valid YAML"),
        ("names:", "kinds: {forklift: [11]}\nnames:", "'kinds' must map some of person, two-wheeler, vehicle"),
        ("names:", "kinds: {person: 11}\nnames:", "'kinds: person' must be a list of ids"),
        ("names:", "kinds: {person: [3]}\nnames:", "must give ids of 'foreground' one kind each"),
        ("names:", "kinds: {person: [10], vehicle: [10]}\nnames:", "must give ids of 'foreground' one kind each"),
        ("sidewalk: [2], ", "sidewalk: [2], sidewalk: [5], ", "sidewalk stands there twice"),
        ("names: {10: person}", "names: {10: 2024-13-45}", "not valid YAML"),
        ("names: {10: person}", "names: " + "[" * 2000, "not valid YAML"),
    ],
)
def test_folder_explains_a_wrong_class_map(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in CLASS_MAP
    with pytest.raises(DatasetError, match=message) as error:
        Folder(folder_tree(tmp_path / "robot", CLASS_MAP.replace(before, after)))
    assert "classes.yaml" in str(error.value)


def test_folder_names_a_missing_label(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "robot")
    (root / "labels" / "hall.png").unlink()
    with pytest.raises(DatasetError, match=r"labels/hall.png is missing"):
        Folder(root)


def test_folder_knows_what_drives_have_shown_behind_objects(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "robot")
    (root / "background").mkdir()
    ids = torch.tensor([255, 255, 255, 255, 1, 255], dtype=torch.uint8)
    write_png(stripes(ids, 2 * HEIGHT, 3 * HEIGHT), str(root / "background" / "hall.png"))
    sample = Folder(root, height=HEIGHT)[0]
    check_invariants(sample)
    assert sample.true_background[0, ::8].tolist() == [255, 0, 1, 2, 1, 255], "shown, and else what is seen"
    write_png(stripes(ids - 251, 2 * HEIGHT, 3 * HEIGHT), str(root / "background" / "hall.png"))
    with pytest.raises(DatasetError, match=r"background/hall.png: unknown label ids 4, 6: it has 0 road"):
        Folder(root, height=HEIGHT)[0]
    (root / "background" / "hall.png").unlink()
    with pytest.raises(DatasetError, match=r"background/hall.png is missing"):
        Folder(root)


def test_a_source_keeps_what_it_knows_behind_objects_to_itself() -> None:
    pytest.importorskip("cv2")
    configuration = load(ROOT / "config" / "training" / "quickstart.yaml", ["network.input_height=32"])
    source = SourceConfig(dataset="synthetic", drives=1, frames=1)
    assert training_source(configuration, source, None)[0].true_background is not None
    silent = training_source(configuration, replace(source, true_background=False), None)
    assert len(silent) == 1 and silent[0].true_background is None


# --- the synthetic street ------------------------------------------------------------------------------------------


def test_synthetic_knows_what_is_behind_everything() -> None:
    pytest.importorskip("cv2")
    dataset = Synthetic(drives=2, frames=2, height=64)
    assert len(dataset) == 4
    samples = [dataset[index] for index in (3, 0)]
    for sample in samples:
        check_invariants(sample)
        assert sample.image.shape == (3, 64, 128)
        assert sample.true_background is not None and int(sample.true_background.max()) <= 2
    again = Synthetic(drives=2, frames=2, height=64)[3]
    assert again.name == samples[0].name and torch.equal(again.image, samples[0].image)
    assert Synthetic(drives=2, frames=2, height=64, split="val")[3].name != again.name
    with pytest.raises(IndexError):
        dataset[4]


# --- remembering them ----------------------------------------------------------------------------------------------


class Gone(torch.utils.data.Dataset):
    """What is left of a dataset when its disk is unplugged: only its length."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length


def assert_same_samples(one: torch.utils.data.Dataset, other: torch.utils.data.Dataset) -> None:
    assert len(one) == len(other)
    for index in range(len(one)):
        first, second = one[index], other[index]
        assert first.name == second.name
        assert (first.true_background is None) == (second.true_background is None)
        for field in ("image", "foreground", "kinds", "partial_background", "true_background", "categories"):
            if (value := getattr(first, field)) is not None:
                assert torch.equal(value, getattr(second, field)), field
        # Resizing rounds by the order of the bytes: it has to be the same for augmented images to be.
        assert first.image.stride() == second.image.stride()


@pytest.mark.parametrize("name", ["cityscapes png", "cityscapes jpg", "kitti", "kitti without truth", "folder"])
def test_remembered_samples_are_the_same(tmp_path: Path, name: str) -> None:
    root = tmp_path / "data"
    if name.startswith("cityscapes"):
        dataset = Cityscapes(cityscapes_tree(root, suffix=name[-3:]), "train", height=HEIGHT)
    elif name.startswith("kitti"):
        dataset = Kitti(kitti_tree(root, manual=name == "kitti"), height=HEIGHT)
    else:
        dataset = Folder(folder_tree(root), height=HEIGHT)
    memory = SampleMemory(2**20)
    remembered = Remembered(dataset, memory)
    assert_same_samples(remembered, dataset)
    remembered.dataset = Gone(len(dataset))
    assert_same_samples(remembered, dataset)


def test_memory_is_shared_by_workers_and_bounded(tmp_path: Path) -> None:
    dataset = Cityscapes(cityscapes_tree(tmp_path, images=6), "train", height=HEIGHT)
    size = HEIGHT * 2 * HEIGHT * 7 + len(dataset[0].name)
    memory = SampleMemory(4 * size + size // 2)
    remembered = Remembered(dataset, memory)
    loader = torch.utils.data.DataLoader(
        remembered, batch_size=1, collate_fn=collate, num_workers=2, multiprocessing_context="fork"
    )
    names = [batch.names[0] for batch in loader]
    assert names == [dataset[index].name for index in range(6)]
    assert memory.used == 4 * size, "four fit, whoever read them"
    assert_same_samples(remembered, dataset)
    assert memory.used == 4 * size
    kept = [index for index in range(6) if remembered._rows[index, 0]]
    remembered.dataset = Gone(6)
    assert [remembered[index].name for index in kept] == [names[index] for index in kept]


def test_memory_that_the_machine_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1e\+09 GB are more than this machine gives away"):
        SampleMemory(10**18)


# --- finding them, batching them, checking them --------------------------------------------------------------------


def test_open_dataset_by_name(tmp_path: Path) -> None:
    cityscapes_tree(tmp_path / "c")
    assert len(open_dataset("cityscapes", tmp_path / "c", "train", HEIGHT)) == 2
    assert len(open_dataset("kitti", kitti_tree(tmp_path / "k"), height=HEIGHT)) == 2
    assert len(open_dataset("folder", folder_tree(tmp_path / "f"), height=HEIGHT)) == 1
    assert len(open_dataset("synthetic", drives=3, frames=4)) == 12
    with pytest.raises(DatasetError, match="unknown dataset 'mapillary': choose one of cityscapes, kitti"):
        open_dataset("mapillary", tmp_path)
    with pytest.raises(DatasetError, match="needs a root"):
        open_dataset("kitti")
    with pytest.raises(DatasetError, match="has no splits"):
        open_dataset("kitti", tmp_path / "k", "val")
    assert DATASET_NAMES == ("cityscapes", "kitti", "folder", "synthetic")


def test_collate_keeps_what_is_known(tmp_path: Path) -> None:
    without = Cityscapes(cityscapes_tree(tmp_path, size=(HEIGHT, 2 * HEIGHT)), "train", height=HEIGHT)[0]
    other = Cityscapes(tmp_path, "train", height=HEIGHT)[1]
    assert collate([without, other]).true_background is None
    assert torch.equal(collate([without, other]).truth[0], without.partial_background)
    other.true_background = torch.ones_like(other.partial_background)
    batch = collate([without, other])
    assert batch.names == [without.name, other.name] and len(batch) == 2
    assert batch.true_background is not None
    assert torch.equal(batch.true_background[0], without.partial_background)
    assert (batch.true_background[1] == 1).all()


def test_collate_refuses_different_sizes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"differ in size .*group them by size"):
        collate(list(Kitti(kitti_tree(tmp_path), height=HEIGHT)))


@pytest.mark.parametrize("workers", [0, 2])
def test_check_counts_classes_and_collects_every_problem(tmp_path: Path, workers: int) -> None:
    dataset = Cityscapes(cityscapes_tree(tmp_path, images=4), "train", height=HEIGHT)
    write_png(torch.full((1, HEIGHT, 2 * HEIGHT), 77, dtype=torch.uint8), str(label_of(tmp_path)))
    dataset.photos[2].write_bytes(b"")
    report = check_dataset(dataset, workers=workers, quiet=True)
    assert not report.ok and report.images == 4
    assert len(report.problems) == 2
    assert "unknown label id 77" in report.problems[0]
    assert dataset.photos[2].name in report.problems[1]
    assert report.shares == pytest.approx(
        {"road": 0.125, "sidewalk": 0.125, "other": 0.25, "foreground": 0.375, "unlabeled": 0.125}
    )
    assert report.images_with["road"] == 2
    assert report.categories["car"] == pytest.approx(0.125)
    assert report.truth_behind == 0
    assert report.kinds == pytest.approx({"person": 1 / 3, "two-wheeler": 1 / 3, "vehicle": 1 / 3})
    assert report.sizes == {(HEIGHT, 2 * HEIGHT): 2}


def test_check_warns_of_classes_that_do_not_occur(tmp_path: Path) -> None:
    dataset = Cityscapes(cityscapes_tree(tmp_path, images=1), "train", height=HEIGHT)
    write_png(torch.full((1, HEIGHT, 2 * HEIGHT), 7, dtype=torch.uint8), str(label_of(tmp_path)))
    report = check_dataset(dataset, workers=0, quiet=True)
    assert report.ok
    assert [warning.split("'")[1] for warning in report.warnings] == ["sidewalk", "other", "foreground"]


def test_check_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kitti_tree(tmp_path)
    arguments = ["--dataset", "kitti", "--root", str(tmp_path), "--workers", "0"]
    assert check_main(arguments) == 0
    assert "true background known behind 100.0% of the foreground" in capsys.readouterr().out
    (tmp_path / "training/semantic/000001_10.png").write_bytes(b"")
    assert check_main(arguments) == 1
    assert "000001_10.png" in capsys.readouterr().out
    assert check_main([*arguments[:2], "--root", str(tmp_path / "gone")]) == 1
    assert "gone does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "least"), [("--height", 1), ("--workers", 0)])
def test_numbers_that_cannot_be_are_refused(capsys: pytest.CaptureFixture[str], option: str, least: int) -> None:
    for main in (check_main, evaluate_main):
        with pytest.raises(SystemExit):
            main(["--weights", "x"] * (main is evaluate_main) + ["--dataset", "synthetic", option, str(least - 1)])
        assert f"{option} must be {least} or more, got {least - 1}" in capsys.readouterr().err


# --- the real ones -------------------------------------------------------------------------------------------------


class TestRealData:
    @pytest.mark.parametrize(("split", "images"), [("train", 2975), ("val", 500)])
    def test_cityscapes(self, split: str, images: int) -> None:
        dataset = Cityscapes(shared("data/cityscapes_256"), split, manual=False)
        assert len(dataset) == images
        for index in (0, images // 2, images - 1):
            sample = dataset[index]
            check_invariants(sample)
            assert sample.image.shape == (3, 256, 512)

    def test_cityscapes_with_manual_truth(self) -> None:
        dataset = Cityscapes(shared("data/cityscapes_256"), "val")
        assert len(dataset) == 100
        sample = dataset[0]
        assert sample.true_background is not None
        behind = sample.true_background[sample.foreground > 0] != 255
        assert behind.float().mean() > 0.5
        known = (sample.partial_background != 255) & (sample.true_background != 255)
        agree = sample.partial_background[known] == sample.true_background[known]
        assert agree.float().mean() > 0.95

    def test_kitti(self) -> None:
        dataset = Kitti(shared("data/kitti_dev"))
        assert len(dataset) == 100
        for index in (0, 50, 99):
            sample = dataset[index]
            check_invariants(sample)
            assert sample.true_background is not None
            assert sample.image.shape[1] == 256 and 840 < sample.image.shape[2] < 850
        known = dataset[0].true_background[dataset[0].foreground > 0] != 255
        assert known.float().mean() > 0.5


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    """A phone stores a portrait photo lying on its side, with a tag that says how to turn it."""
    root = folder_tree(tmp_path / "robot")
    jpeg = encode_jpeg(noise(3 * HEIGHT, 2 * HEIGHT)).numpy().tobytes()
    # A minimal EXIF segment: little endian, one entry, orientation (0x0112) = 6, turn clockwise.
    entry = np.array([0x0112, 3, 1, 0, 6, 0], dtype="<u2").tobytes()
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\x01\0" + entry + b"\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (root / "images" / "hall.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    assert Folder(root, height=2 * HEIGHT)[0].image.shape == (3, 64, 96)


@pytest.mark.parametrize("size", [(1024, 2048), (512, 1024), (376, 752), (375, 1242)])
def test_labels_lie_where_their_photo_lies(size: tuple[int, int]) -> None:
    """A rectangle of the photo and its label have the same centre after resizing, to less than a sampling step."""
    rng, target, offsets = np.random.default_rng(0), (256, 512), []
    for _ in range(40):
        top, left = rng.integers(10, size[0] // 2), rng.integers(10, size[1] // 2)
        bottom, right = rng.integers(top + 40, size[0] - 10), rng.integers(left + 40, size[1] - 10)
        labels = torch.zeros(size, dtype=torch.uint8)
        labels[top:bottom, left:right] = 1
        photo = resize_photo((labels * 200).expand(3, *size).contiguous(), target)[0]
        offsets.append(_centre(resize_labels(labels, target)) - _centre(photo))
    # An even factor is a tie between two source pixels, half a source pixel either side of the centre.
    tie = [0.5 * target[axis] / size[axis] for axis in (0, 1)]
    assert (np.abs(np.mean(offsets, 0)) < np.add(tie, 0.05)).all(), np.mean(offsets, 0)


def _centre(image: torch.Tensor) -> np.ndarray:
    weights = image.double().numpy()
    rows, columns = np.indices(weights.shape)
    return np.array([(rows * weights).sum(), (columns * weights).sum()]) / weights.sum()


def manual_tree(root: Path, annotated: int = 1, size: tuple[int, int] = (4 * HEIGHT, 8 * HEIGHT)) -> Path:
    """Two Cityscapes images, of which the first `annotated` have a manual annotation, larger than the photo."""
    cityscapes_tree(root)
    truth = torch.tensor([255, 0, 1, 2, 2, 0, 1, 2], dtype=torch.uint8)
    folder = root / "gt_manual" / "train" / "aachen"
    folder.mkdir(parents=True)
    for number in range(annotated):
        write_png(stripes(truth, *size), str(folder / f"aachen_{number:06d}_000019_gt_manual.png"))
    return root


def test_cityscapes_with_manual_truth_is_its_annotated_images(tmp_path: Path) -> None:
    dataset = Cityscapes(manual_tree(tmp_path), "train", HEIGHT)
    assert len(dataset) == 1
    sample = dataset[0]
    assert sample.true_background is not None and sample.true_background.shape == sample.foreground.shape
    assert set(sample.true_background[sample.foreground > 0].tolist()) == {0, 1, 2}  # behind the objects, too
    known = (sample.partial_background != 255) & (sample.true_background != 255)
    assert torch.equal(sample.partial_background[known], sample.true_background[known])
    whole = Cityscapes(tmp_path, "train", HEIGHT, manual=False)
    assert len(whole) == 2 and whole[0].true_background is None


def test_manual_truth_without_any_image_of_the_split(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gt_manual.*holds no"):
        Cityscapes(manual_tree(tmp_path, annotated=0), "train", HEIGHT)


def test_manual_truth_with_other_values_names_the_file(tmp_path: Path) -> None:
    manual_tree(tmp_path)
    path = tmp_path / "gt_manual" / "train" / "aachen" / "aachen_000000_000019_gt_manual.png"
    write_png(torch.full((1, HEIGHT, 2 * HEIGHT), 7, dtype=torch.uint8), str(path))
    with pytest.raises(DatasetError, match=r"000000_000019_gt_manual.*unknown label id 7"):
        Cityscapes(tmp_path, "train", HEIGHT)[0]
