"""Checkpoints from outside: a network or one clear error, whatever stands in them; no other file is read."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_checkpoint import Harmful, released_state

from sfi_ros.errors import MissingFileError, SfiError
from sfi_ros.network import checkpoint, zoo
from sfi_ros.network import released as released_module
from sfi_ros.network.checkpoint import CheckpointError
from sfi_ros.network.metadata import Metadata, from_json
from sfi_ros.network.released import import_released

SMALL = "fast-mobilenetv2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[dict, bytes]:
    """The header and the numbers of a good checkpoint."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("whole") / "whole.safetensors"
    checkpoint.save(path, zoo.build(SMALL), dtype=torch.float16)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def write(path: Path, header: dict | bytes, numbers: bytes = b"", size: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if size is None else size).to_bytes(8, "little") + text + numbers)
    return path


def with_metadata(whole, path: Path, changes: dict | str) -> Path:
    header, numbers = whole
    said = header["__metadata__"]["sfi_ros"]
    text = changes if isinstance(changes, str) else json.dumps(json.loads(said) | changes)
    return write(path, {**header, "__metadata__": {"sfi_ros": text}}, numbers)


def test_the_file_that_the_others_are_made_of_is_good(whole, tmp_path):
    assert checkpoint.load(with_metadata(whole, tmp_path / "x.safetensors", {})).metadata.name == SMALL


# --- metadata ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({"input_height": value}, "input_height must be an integer within 32..4096; got")
            for value in ("256", 0, -256, 10**30, 1e9, True, None, [256], {}, float("nan"), float("inf"))
        ),
        *(({"format": value}, "format") for value in ("1", 0, -1, None, [], True, 2, 10**400)),
        *(({"name": value}, "name must be a text; got") for value in (None, 7, ["fast-mobilenetv2"], {}, True)),
        *(({"options": value}, "options must be an object; got") for value in (None, 7, "mpi", [["fill", "mpi"]])),
        *(
            ({"options": {"foreground_classes": value}}, "foreground_classes must be 1, or 3")
            for value in (10_000_000, 0, -1, 2, "1", 1.0, True, None, [1], 10**100)
        ),
        *(({"options": {"fill": value}}, "fill must be one of mpi, zero; got") for value in (None, [], {}, 7, "MPI")),
        *(
            ({"options": {key: "imagenet"}}, f"unknown network options {key}")
            for key in ("pretrained", "name", "self", "__class__")
        ),
        ({"options": {"pretrained": "/etc/passwd"}}, "unknown network options pretrained"),
        ({"name": "fast-mobilenetv2/../x"}, "unknown network"),
        ({"name": "x" * 100_000}, "unknown network"),
        *(({"scores": value}, "scores") for value in (None, [], {"a": "b"}, {"a": None}, {"a": True}, {"a": 10**400})),
        ({"scores": {"a": float("nan")}}, "finite number"),
        *(({"training_data": value}, "training_data must be a text") for value in (None, 7, [])),
        *(({"extra": value}, "extra must be an object") for value in (None, 7, [])),
        *(({"package_version": value}, "package_version must be a text") for value in (None, 7)),
        *(
            ({"mean": value}, "mean must be three finite numbers")
            for value in (None, 7, [], [0, 1], "abc", [0, 0, "1"])
        ),
        ({"std": [1, 1, float("inf")]}, "std must be three finite numbers"),
        *(({"background_classes": value}, "background_classes") for value in (None, 7, "road", [1, 2, 3], [], {})),
        ({"training_data": "\x1b[2J"}, "cannot be printed"),
        ({"extra": {"\x1b]0;x\x07": 1}}, "cannot be printed"),
    ],
)
def test_values_of_other_types_and_ranges(whole, tmp_path, changes, message):
    path = with_metadata(whole, tmp_path / "x.safetensors", changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("[]", "it is not an object"),
        ("null", "it is not an object"),
        ("NaN", "it is not an object"),
        ("{}", "it lacks name, options"),
        ('{"name": "fast-mobilenetv2"}', "it lacks options"),
        ('{"name": "a", "name": "b", "options": {}}', "a key stands in it twice"),
        ('{"name": "a", "options": {"fill": "mpi", "fill": "zero"}}', "a key stands in it twice"),
        ("[" * 100_000 + "]" * 100_000, "is damaged"),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, "is damaged"),
        (
            '{"name": "a", "options": {}, "extra": ' + '{"a":' * 40 + "1" + "}" * 40 + "}",
            "more than 32 lists and objects",
        ),
        ('{"name": "a", "options": {}, "extra": {"n": ' + "9" * 5_000 + "}}", "is damaged"),
        ('{"name": "\\ud800", "options": {}}', "cannot be printed"),
        ('{"name": "' + "a" * (1 << 20) + '", "options": {}}', "more than 1048576"),
        ('{"format": 99, "package_version": "\\u001b[31m7"}', "cannot be printed"),
    ],
)
def test_texts_that_are_no_metadata(whole, tmp_path, text, message):
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(with_metadata(whole, tmp_path / "x.safetensors", text))


def test_what_is_unknown_is_passed_over(whole, tmp_path):
    changes = {"something": {"new": [1, 2]}, "extra": {"clip": float("inf")}}
    metadata = checkpoint.read_metadata(with_metadata(whole, tmp_path / "x.safetensors", changes))
    assert metadata.extra == {"clip": "Infinity"}


def test_scores_that_were_not_measured_are_left_out(tmp_path):
    scores = {"a": 0.5, "b": float("nan")}
    metadata = checkpoint.save(tmp_path / "x.safetensors", zoo.build(SMALL), scores=scores)
    assert metadata.scores == {"a": 0.5} == checkpoint.read_metadata(tmp_path / "x.safetensors").scores


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    for options in ({"input_height": 10**6}, {"extra": {"a": "\x1b"}}, {"training_data": 7}):
        with pytest.raises(SfiError):
            checkpoint.save(tmp_path / "x.safetensors", zoo.build(SMALL), **options)
    assert list(tmp_path.iterdir()) == []


def test_loading_reads_nothing_else_and_allocates_little(whole, tmp_path):
    """Neither a download nor another file, and hostile sizes cost no memory: in a process that would die of either."""
    files = [
        with_metadata(whole, tmp_path / f"{number}.safetensors", changes)
        for number, changes in enumerate(
            [
                {"options": {"pretrained": "imagenet"}},
                {"options": {"pretrained": str(tmp_path / "trap")}},
                {"options": {"foreground_classes": 10_000_000}},
                {"name": "paper-resnet50", "options": {"foreground_classes": 3}},
            ]
        )
    ]
    os.mkfifo(tmp_path / "trap")  # whoever opens it waits for ever
    program = (
        "import sys, socket, resource, torch\n"
        "from sfi_ros.network import checkpoint, zoo\n"
        "zoo.build('fast-mobilenetv2')\n"  # what is loaded once
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "socket.socket = None\n"
        "for path in sys.argv[1:]:\n"
        "    try: checkpoint.load(path); print('loaded')\n"
        "    except checkpoint.CheckpointError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *map(str, files)], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(run.stdout) < 60_000  # KiB; paper-resnet50 alone would take 230 000


# --- tensors -------------------------------------------------------------------------------------------------------

BIAS = "decoder.classifier.bias"
VARIANCE = "decoder.join.1.running_var"
COUNT = "decoder.join.1.num_batches_tracked"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({BIAS: torch.zeros(3, dtype=torch.complex64)}, "holds numbers of type C64, not floating-point"),
        ({BIAS: torch.zeros(3, dtype=torch.int64)}, "holds numbers of type I64, not floating-point"),
        ({BIAS: torch.zeros(3, dtype=torch.bool)}, "holds numbers of type BOOL, not floating-point"),
        ({BIAS: torch.zeros(3, dtype=torch.float8_e4m3fn)}, "holds numbers of type F8_E4M3, not floating-point"),
        ({COUNT: torch.tensor(1.0)}, "holds numbers of type F32, not 64-bit integers"),
        ({COUNT: torch.tensor(1, dtype=torch.int8)}, "holds numbers of type I8, not 64-bit integers"),
        ({BIAS: torch.zeros(3, 1)}, "has shape"),
        ({BIAS: torch.zeros(())}, "has shape"),
        ({BIAS: torch.zeros(0)}, "has shape"),
        ({BIAS: torch.tensor([0, 0, float("inf")])}, "not finite"),
        ({BIAS: torch.tensor([0, 0, float("nan")], dtype=torch.float16)}, "not finite"),
        ({VARIANCE: torch.full((64,), -1.0)}, "holds negative values, but is a variance"),
        ({"\x1b[2Jname": torch.zeros(1)}, r"holds \\x1b\[2Jname, which"),
    ],
)
def test_tensors_of_other_kinds(whole, tmp_path, changes, message):
    network = zoo.build(SMALL)
    save_file({**network.state_dict(), **changes}, tmp_path / "x.safetensors", metadata=whole[0]["__metadata__"])
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_kind_of_floating_point_number_is_loaded_as_float32(tmp_path, dtype):
    network = zoo.build(SMALL)
    checkpoint.save(tmp_path / "x.safetensors", network, dtype=dtype)
    loaded = checkpoint.load(tmp_path / "x.safetensors").network
    for name, tensor in loaded.state_dict().items():
        expected = network.state_dict()[name]
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected.to(dtype).to(expected.dtype) if expected.is_floating_point() else expected)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_weights_do_not_lie_in_the_file(whole, tmp_path):
    path = with_metadata(whole, tmp_path / "x.safetensors", {})
    network = checkpoint.load(path).network
    before = network.decoder.classifier.weight.clone()
    path.write_bytes(b"")  # a mapped file would end the process here
    assert torch.equal(network.decoder.classifier.weight, before)


# --- the file ------------------------------------------------------------------------------------------------------


def entry(shape=(1,), offsets=(0, 4), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "numbers", "size"),
    [
        ({"a": entry((2,))}, b"1234", None),
        ({"a": entry((2**40, 2**40))}, b"1234", None),
        ({"a": entry((2**32,), (0, 2**34))}, b"1234", None),
        ({"a": entry((1,), (0, 2**63))}, b"1234", None),
        ({"a": entry((1,), (4, 0))}, b"1234", None),
        ({"a": entry((-1,))}, b"1234", None),
        ({"a": entry(dtype="F31")}, b"1234", None),
        ({"a": entry(), "b": entry()}, b"1234", None),
        ({"a": entry()}, b"123", None),
        ({"a": entry()}, b"12345", None),
        ({"a": 7}, b"", None),
        ({"__metadata__": {"sfi_ros": 7}}, b"", None),
        ({"__metadata__": ["sfi_ros"]}, b"", None),
        (b"[" * 200_000, b"", None),
        (b"\xff\xfe", b"", None),
        (b"{}", b"", 2**63),
        (b"{}", b"", 2**64 - 1),
        (b"{}", b"", 90_000_000),
        (b"{}", b"", 3),
        (b"", b"", 0),
    ],
)
def test_headers_that_lie(tmp_path, header, numbers, size):
    path = write(tmp_path / "x.safetensors", header, numbers, size)
    with pytest.raises(CheckpointError, match=r"x\.safetensors is not a readable \.safetensors file") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_a_header_that_is_long_takes_no_memory(tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((1 << 30).to_bytes(8, "little"))
        file.truncate(2 << 30)  # sparse: it has no blocks
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="impossible length"):
        checkpoint.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 6852696\n"


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth.tar"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "is a Git LFS pointer, not the weights: run `git lfs pull`"),
        (LFS.replace(b"/v1", b"/v2"), "is a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html>", "is a web page, not weights"),
        (b"<HTML><body>Quota exceeded", "is a web page, not weights"),
        (b"", "are empty"),
    ],
)
def test_what_a_failed_download_leaves(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    load = import_released if name.endswith(".tar") else checkpoint.load
    with pytest.raises(CheckpointError, match=message):
        load(path)
    with pytest.raises(CheckpointError, match=message):
        zoo.build(SMALL, pretrained=path)


@pytest.mark.parametrize("load", [checkpoint.load, checkpoint.read_metadata, import_released])
def test_paths_that_are_no_files(tmp_path, load):
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(CheckpointError, match=r"a folder|not a regular file|cannot be read"):
            load(path)
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "absent", tmp_path / "file" / "below"):
        with pytest.raises(MissingFileError, match="do not exist"):
            load(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        checkpoint.load(path)


def test_other_formats_name_their_way_in(tmp_path):
    for name, message in (("x.pth.tar", "imported by `sfi convert`"), ("x.onnx", "only an engine")):
        (tmp_path / name).write_bytes(b"PK\x03\x04" * 100)
        with pytest.raises(CheckpointError, match=message):
            checkpoint.load(tmp_path / name)


def test_mutations_end_in_one_kind_of_error(whole, tmp_path):
    """Bytes of the header flipped, cut, inserted and doubled: a network, or one line with the file's name."""
    random = np.random.default_rng(0)
    header, numbers = whole
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    refused = 0
    for number in range(150):
        content = bytearray(text)
        # Half of the changes go to our own metadata, which the library does not look into.
        place = content.index(b"sfi_ros") if number % 2 else 0
        for _ in range(random.integers(1, 4)):
            position = int(random.integers(place, place + 700 if place else len(content)))
            kind = random.integers(4)
            if kind == 0:
                content[position] ^= 1 << int(random.integers(8))
            elif kind == 1:
                del content[position : position + int(random.integers(1, 40))]
            elif kind == 2:
                content[position:position] = random.choice([b"-", b"9", b"[", b'"', b"\\", b"\x00", b"1e400", b"null"])
            else:
                content[position:position] = content[position : position + int(random.integers(1, 60))]
        write(path, bytes(content), numbers)
        try:
            metadata = checkpoint.read_metadata(path)
            checkpoint.load(path)
        except SfiError as error:
            refused += 1
            assert str(path) in str(error)
            assert str(error).isprintable()
        else:
            assert isinstance(metadata, Metadata)
    assert refused > 100


@pytest.mark.parametrize("value", ["7", "null", '"mpi"', "[]", "{}", "[[]]", "1e999", "-1", "true", '{"a": [null]}'])
def test_any_value_in_any_place_of_the_metadata(value):
    own = {"name": SMALL, "options": {}}
    for field in Metadata.__dataclass_fields__:
        text = json.dumps({**own, field: "PLACE"}).replace('"PLACE"', value)
        try:
            metadata = from_json(Metadata, text, "file")
            metadata.check_supported("file")
        except SfiError as error:
            assert "file" in str(error)


# --- PyTorch's own files -------------------------------------------------------------------------------------------

RELEASED = "paper-resnet18-shared"


@pytest.fixture(scope="module")
def released() -> dict[str, torch.Tensor]:
    return released_state(RELEASED)


def plain_data() -> dict:
    """What training scripts save beside the tensors, of NumPy's plain data."""
    return {
        "best_mIoU": np.float64(0.71),
        "several": [np.float32(1), np.int8(2), np.bool_(True), np.datetime64("2020")],
        "arrays": (np.arange(5.0), np.zeros((2, 3), order="F"), np.array(["a"]), np.array([1, None], dtype=object)),
        "types": {np.float64(1): np.dtype("f4"), "record": np.zeros(2, dtype=[("x", "f4"), ("y", "O")])},
        "random": np.random.RandomState(0).get_state(),
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "as before PyTorch 1.6"])
def test_numbers_of_numpy_beside_the_tensors(released, tmp_path, zipped):
    path = tmp_path / "numpy_score.pth.tar"
    content = {"epoch": 50, "state_dict_G": released, **plain_data()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    network = import_released(path)
    assert torch.equal(network.early.conv1.weight, released["feats.conv1.weight"])


def test_names_of_numpy_1_and_2(released, tmp_path):
    path = tmp_path / "x.pth.tar"
    torch.save({"state_dict_G": released, "score": np.float64(0.5)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content or b"numpy.core.multiarray" in content
    for other in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        renamed = content.replace(b"numpy._core.multiarray", other).replace(b"numpy.core.multiarray", other)
        path.write_bytes(renamed)
        assert import_released(path).name == RELEASED


def test_numpy_itself_is_not_called(released, tmp_path, monkeypatch):
    """NumPy takes what a pickle says about types at its word: pointers among them."""
    torch.save({"state_dict_G": released, **plain_data()}, tmp_path / "x.pth.tar")
    core = getattr(np, "_core", None) or np.core
    for name in ("scalar", "_reconstruct"):
        monkeypatch.setattr(core.multiarray, name, None)
    assert import_released(tmp_path / "x.pth.tar").name == RELEASED


class Settings:
    pass


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "as before PyTorch 1.6"])
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (argparse.Namespace(lr=1e-4), "argparse.Namespace"),
        (Path("runs"), "pathlib"),
        (Settings(), "test_weights_from_outside.Settings"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (print, "print"),
        (np.random.default_rng(0), "numpy.random"),
        (Harmful(), "getattr"),
    ],
)
def test_other_objects_are_named_in_one_sentence(released, tmp_path, monkeypatch, value, named, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict_G": released, "args": value}, "args.pth.tar", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as caught:
        import_released("args.pth.tar")
    message = str(caught.value)
    assert f"args.pth.tar holds an object of {named}" in message
    assert message.isprintable()
    assert "add_safe_globals" not in message
    assert not Path("executed").exists()


def test_the_remedy_works(released, tmp_path):
    path = tmp_path / "args.pth.tar"
    torch.save({"state_dict_G": released, "args": argparse.Namespace(lr=1e-4)}, path)
    with pytest.raises(CheckpointError) as caught:
        import_released(path)
    program = str(caught.value).split('python -c "')[1].split('"')[0]
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert import_released(tmp_path / "tensors.pth.tar").name == RELEASED


def test_a_file_that_macos_unpacked(released, tmp_path):
    path = tmp_path / "best.pth.tar"
    torch.save({"state_dict_G": released}, path)
    folder = tmp_path / "best.pth"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    assert folder.is_dir()
    path.unlink()
    for named, error in ((path, MissingFileError), (folder, CheckpointError), (tmp_path, CheckpointError)):
        with pytest.raises(error, match=r"was unpacked, as macOS does.* && zip -0 -r best\.pth\.zip best\.pth`"):
            import_released(named)
    with zipfile.ZipFile(tmp_path / "best.pth.zip", "w") as archive:  # as the message says
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(tmp_path))
    assert import_released(tmp_path / "best.pth.zip").name == RELEASED


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, 2], "not a dictionary of tensors but a list"),
        ({1: torch.zeros(2)}, "a name that is not a text: 1"),
        ({"feats.convforeout.0.weight": 7}, "not a plain tensor"),
        ({"feats.convforeout.0.weight": np.zeros(3)}, "not a plain tensor"),
        ({"feats.convforeout.0.weight": torch.zeros(3).to_sparse()}, "not a plain tensor"),
        ({"feats.convforeout.0.weight": torch.zeros(3, device="meta")}, "not a plain tensor"),
        ({"feats.bn1.weight": torch.ones(64, dtype=torch.complex64)}, r"type torch\.complex64, not floating-point"),
        ({"feats.bn1.weight": torch.ones(64, dtype=torch.int32)}, r"type torch\.int32, not floating-point"),
        ({"feats.bn1.running_var": -torch.ones(64)}, "is a variance"),
        ({"feats.bn1.weight": torch.full((64,), float("nan"))}, "not finite"),
        ({"feats.conv1.weight": torch.zeros(1).expand(2**20, 2**20, 2**10)}, "has shape"),
    ],
)
def test_state_dicts_of_other_kinds(released, tmp_path, state, message):
    path = tmp_path / "x.pth.tar"
    torch.save({"state_dict_G": {**released, **state} if isinstance(state, dict) else state}, path)
    with pytest.raises(CheckpointError, match=message):
        import_released(path)


def test_archives_of_other_kinds(tmp_path, monkeypatch):
    path = tmp_path / "x.pth.tar"
    path.write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(CheckpointError, match="is packed: unpack it with `tar -xf"):
        import_released(path)
    monkeypatch.setattr(released_module, "MAX_CONTENT", 10_000_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_001))
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="unpacks to 10000001 bytes, more than"):
        import_released(path)
