"""The benchmark scripts end to end at tiny sizes, and what their numbers rest on."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks import (
    engine,
    flops,
    footprint,
    layers,
    machine,
    offline,
    regression,
    released,
    ros_cameras,
    ros_latency,
    soak,
    stand_ins,
    tables,
    workers,
)
from sfi_ros.frames.sources import SourceError
from sfi_ros.inference import InferenceEngine
from sfi_ros.inference.device import possible_precisions
from sfi_ros.inference.processor import Processor, this_processor
from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.preprocessing import normalize
from sfi_ros.network.scene_network import Fill


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """The released network's stand-in; its mask is neither empty nor full."""
    return stand_ins.weights_for(released.NAME, tmp_path_factory.mktemp("weights"), boundary="raw")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return stand_ins.street_frames(128, 64, 3)


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(machine, "SIZES", {"cpu": (64, (8, 16, 16), 1 << 16)})


def a_machine(**values: float | None) -> machine.Machine:
    rates = {"float32": 100.0, "bfloat16": 200.0}
    return machine.Machine("cpu", "some", 1, rates, {"float32": 150.0, "bfloat16": 50.0}, 10.0, **values)


# --- tables --------------------------------------------------------------------------------------------------------


def some_table(**rows: float | None) -> tables.Table:
    columns = (tables.Column("name", "name", identity=True), tables.Column("ms", "ms", ".1f"))
    return tables.Table("some", "Some", columns, [{"name": name, "ms": value} for name, value in rows.items()])


def parsed(*words: str):
    parser = argparse.ArgumentParser()
    tables.add_options(parser)
    return parser.parse_args(words)


def test_tables_print_markdown_and_write_what_they_were_made_of(tmp_path, capsys):
    path = tmp_path / "new" / "some.json"
    tables.report(parsed("--json", str(path)), some_table(a=1.25, b=None), device="cpu")
    printed = capsys.readouterr().out
    assert "| a    | 1.2 |" in printed
    assert "| b    |   - |" in printed
    assert f"On {this_processor()}, " in printed
    content = json.loads(path.read_text())
    assert content["tables"] == [
        {"name": "some", "title": "Some", "rows": [{"name": "a", "ms": 1.25}, {"name": "b", "ms": None}]}
    ]
    assert content["device"] == "cpu"
    assert content["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"command", "date", "commit"} <= set(content)
    assert content["machine"]["processor"] == str(this_processor())
    assert content["machine"]["cores"] >= 1


def test_compare_prints_new_over_old_row_by_row(tmp_path, capsys):
    path = tmp_path / "old.json"
    tables.write(path, some_table(a=2.0, gone=1.0, zero=0.0))
    tables.report(parsed("--compare", str(path)), some_table(a=3.0, new=1.0, zero=1.0))
    printed = capsys.readouterr().out.partition("new / old")[2]
    lines = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in printed.splitlines() if "|" in line}
    assert lines["a"] == "1.50x"
    assert lines["new"] == "only in the new run"
    assert lines["gone"] == "only in the old run"
    assert lines["zero"] == "-"


def test_compare_refuses_what_is_no_measurement(tmp_path, capsys):
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(SystemExit, match="must be a JSON that --json wrote"):
        tables.report(parsed("--compare", str(tmp_path / "other.json")), some_table(a=1.0))
    with pytest.raises(SystemExit):
        parsed("--compare", str(tmp_path / "absent.json"))
    assert "does not exist" in capsys.readouterr().err


# --- the baseline ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", ["raw", "dilated"])
def test_the_literal_network_equals_that_of_the_zoo(boundary, weights, frames):
    network = zoo.build(released.NAME, boundary=boundary).eval()
    network.load_state_dict(checkpoint.load(weights).network.state_dict())
    images = normalize(torch.from_numpy(frames).permute(0, 3, 1, 2))
    filled: list[torch.Tensor] = []  # what the late encoder, which both share, reads
    network.late.register_forward_pre_hook(lambda _, inputs: filled.append(inputs[0]))
    with torch.inference_mode():
        fast, literal = network(images), released.with_literal_fill(network)(images)
    assert 0.05 < (literal.foreground > 0).float().mean() < 0.6
    assert torch.equal(literal.foreground, fast.foreground)
    assert torch.equal(filled[0], filled[1])
    # Its memory lies otherwise, so that the convolutions behind it round otherwise.
    torch.testing.assert_close(literal.background, fast.background, rtol=1e-4, atol=1e-4)
    network.fill = Fill(replace(network.options, fill="zero"))
    with torch.inference_mode():
        assert not torch.allclose(network(images).background, literal.background, rtol=1e-2, atol=1e-2)


def test_the_released_engine_gives_what_the_engine_gives(weights, frames):
    plain = released.ReleasedEngine(weights, input_height=64)(list(frames))
    ours = InferenceEngine.load(weights, device="cpu", precision="float32", input_height=64)(list(frames))
    for one, other in zip(plain, ours, strict=True):
        assert one.foreground.shape == other.foreground.shape == (64, 128)
        # The engine decides on bytes: classes as probable as each other but for 1/255 may fall either way.
        assert (one.foreground == other.foreground).mean() > 0.97
        assert (one.background == other.background).mean() > 0.97
        assert np.abs(one.confidence.astype(int) - other.confidence).mean() < 2
        assert min(one.timing.preprocess, one.timing.network, one.timing.postprocess) > 0


def test_stand_ins_mask_about_what_is_foreground():
    network = stand_ins.stand_in("fast-resnet18")
    frames = stand_ins.street_frames(256, 144, 4)
    with torch.inference_mode():
        logits = network(normalize(torch.from_numpy(frames).permute(0, 3, 1, 2)))
    shares = (logits.foreground > 0).float().mean((1, 2, 3))
    assert shares.min() > 0.05
    assert shares.max() < 0.6
    assert logits.background.abs().max() < 1e3  # far from where half precision ends


def test_photos_of_a_folder(tmp_path):
    (tmp_path / "a.png").write_bytes(b"damaged")
    with pytest.raises(SourceError, match="no image that OpenCV can decode"):
        stand_ins.folder_frames(tmp_path, 32, 16, 5)
    cv2.imwrite(str(tmp_path / "b.png"), np.full((20, 30, 3), (10, 20, 30), np.uint8))
    assert np.array_equal(stand_ins.folder_frames(tmp_path, 32, 16, 5), np.full((1, 16, 32, 3), (30, 20, 10), np.uint8))


# --- operations, peak and floor --------------------------------------------------------------------------------------


def test_flops_are_those_of_the_design():
    cost = flops.cost("paper-resnet18", 256, 512)
    assert round(cost.flop / 1e9) == 332
    assert round(cost.parameters / 1e6, 1) == 22.5
    assert 0 < cost.foreground_flop < cost.flop


@pytest.mark.parametrize("name", zoo.NAMES)
def test_layers_sum_to_the_whole(name):
    cost = flops.cost(name, 64, 128)
    assert sum(layer.flop for layer in cost.layers) == cost.flop


def test_floor_is_what_takes_longest():
    cost = flops.Cost(flop=3 * 10**9, foreground_flop=0, parameters=10**6, layers=(flops.Layer(3 * 10**9, 10**9),))
    assert cost.floor(a_machine(), "float32") == pytest.approx(3 / 150)  # the better rate of matmul and convolution
    assert cost.floor(a_machine(), "bfloat16", images=2) == pytest.approx(6 / 200)
    assert cost.floor(a_machine(), "float32", read=10**9, written=10**9) == pytest.approx(2.004 / 10)
    behind_a_bus = a_machine(to_device_gbytes=2.0, from_device_gbytes=4.0)
    assert cost.floor(behind_a_bus, "float32", read=10**9) == pytest.approx(1 / 2)
    assert cost.floor_by_layers(a_machine(), "float32") == pytest.approx(4 / 10)
    assert cost.traffic("bfloat16") == 2 * 10**9


def test_machine_measures(small_machine, tmp_path):
    machine.main(["--device", "cpu", "--seconds", "0.01", "--json", str(tmp_path / "machine.json")])
    peak = json.loads((tmp_path / "machine.json").read_text())["peak"]
    numbers = [*peak["matmul_gflops"].values(), *peak["conv_gflops"].values(), peak["copy_gbytes"]]
    assert len(numbers) == 2 * len(possible_precisions(torch.device("cpu"))) + 1
    assert all(math.isfinite(number) and number > 0 for number in numbers)


def test_every_view_costs_as_an_image_of_its_size_does():
    one, smaller, four = (flops.cost("fast-mobilenetv2", *case) for case in ((192, 288), (128, 192), (192, 288, 4)))
    assert four.flop == 2 * (one.flop + smaller.flop)
    assert four.parameters == one.parameters


def test_flops_script(small_machine, tmp_path, capsys):
    flops.main(["--height", "64", "--width", "128", "--floor", "--json", str(tmp_path / "flops.json")])
    rows = json.loads((tmp_path / "flops.json").read_text())["tables"][1]["rows"]
    assert [row["network"] for row in rows] == list(zoo.NAMES)
    assert all(row["layers_ms_float32"] >= row["floor_ms_float32"] > 0 for row in rows)
    assert "fast-mobilenetv2" in capsys.readouterr().out


def test_layers_script(small_machine, tmp_path):
    threads = torch.get_num_threads()
    layers.main(["--size", "64x32", "--passes", "2", "--json", str(tmp_path / "layers.json")])
    torch.set_num_threads(threads)
    *convolutions, rest, everything = json.loads((tmp_path / "layers.json").read_text())["tables"][1]["rows"]
    assert "network.decoder.fuse.0" in {row["layer"] for row in convolutions}
    assert all(row["ms"] > 0 and row["gflops"] > 0 for row in convolutions)
    assert sum(row["ms"] for row in (*convolutions, rest)) == pytest.approx(everything["ms"])
    flop = sum(row["flop"] for row in convolutions if "foreground.kinds" not in row["layer"])  # of the shipped weights
    assert flop == pytest.approx(flops.cost("fast-mobilenetv2", 32, 64).flop, rel=1e-6)


# --- engine ----------------------------------------------------------------------------------------------------------

TINY = ["--device", "cpu", "--source", "128x64", "--heights", "32", "--networks", "fast-mobilenetv2"]
TINY += ["--seconds", "0.2", "--rounds", "2"]


def test_engine_script(small_machine, tmp_path, capsys):
    path = tmp_path / "engine.json"
    # float16 is refused on a CPU: such a row says so, and the others are measured
    engine.main([*TINY, "--precisions", "float32,float16", "--batches", "2", "--json", str(path)])
    first = capsys.readouterr().out
    assert "not measured: fast-mobilenetv2, pytorch, float16: OptionError: precision 'float16' is not possible" in first
    rows = json.loads(path.read_text())["tables"][1]["rows"]
    baseline, measured, refused = rows
    assert (baseline["network"], baseline["backend"], baseline["batch"]) == ("paper-resnet18, released", "literal", 1)
    assert (measured["network"], measured["precision"], measured["batch"]) == ("fast-mobilenetv2", "float32", 2)
    assert refused["precision"] == "float16"
    for row in (baseline, measured):
        assert row["input"] == "64x32"
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["memory_mb"] > 0
        assert row["floor_ms"] > 0
        assert 0 < row["foreground"] < 1
        assert row["gflop"] == pytest.approx(flops.cost(row["network"].split(",")[0], 32, 64).flop / 1e9)
        assert row["ratio"] == pytest.approx(row["frames_per_second"] / baseline["frames_per_second"])

    tables.compare(path, tables.Table("engine cpu", "", engine.COLUMNS, rows))
    compared = capsys.readouterr().out
    assert compared.count("1.00x") > 20
    assert "only in" not in compared


def test_regression_keeps_ratios_and_compares_with_them(small_machine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(regression, "REFERENCE", tmp_path)
    regression.main(["--keep", *TINY, "--precisions", "float32"])
    kept = tmp_path / f"{regression.kind(this_processor())}.json"
    (row,) = json.loads(kept.read_text())["tables"][0]["rows"]
    assert (row["network"], row["precision"]) == ("fast-mobilenetv2", "float32")
    assert set(row) == {column.key for column in regression.COLUMNS}, "no times, which another machine does not have"
    table = tables.Table("regression", "", regression.COLUMNS, [row | {"ratio": row["ratio"] / 2}])
    regression.report(table, kept)
    assert "0.50x" in capsys.readouterr().out
    regression.report(table, tmp_path / "absent.json")
    assert "absent.json does not exist; --keep writes it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("processor", "kind"),
    [
        (Processor("", "AVX512", True, True, True), "avx512_bf16"),
        (Processor("", "AVX512", True, True, False), "avx512"),
        (Processor("", "AVX2", True, False, False), "avx2"),
    ],
)
def test_ratios_are_kept_for_each_kind_of_processor(processor, kind):
    assert regression.kind(processor) == kind


def test_cameras(small_machine, tmp_path):
    path = tmp_path / "cameras.json"
    engine.main([*TINY, "--precisions", "float32", "--cameras", "1,2", "--json", str(path)])
    table = json.loads(path.read_text())["tables"][1]
    assert table["name"] == "cameras cpu"
    _, one, two = table["rows"]
    assert one["over_one_camera"] == 1.0
    assert two["over_one_camera"] == pytest.approx(two["frames_per_second"] / one["frames_per_second"])
    assert two["frames_per_camera"] == pytest.approx(two["frames_per_second"] / 2)


def test_a_process_that_dies_is_named(weights, frames, tmp_path):
    np.save(tmp_path / "frames.npy", frames)
    worker = workers.Worker(workers.Case(released.NAME, workers.LITERAL, "float32", 1, (128, 64), 32, "cpu", None))
    try:
        worker.start(weights, tmp_path / "frames.npy")
        worker.turn(0.0)
        assert len(worker.times.calls) == 1
        worker._process.kill()
        worker.turn(0.0)
        assert worker.problem == "the process ended with status -9"
    finally:
        worker.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--networks", "fast-resnet17"], "unknown fast-resnet17; known are paper-resnet18"),
        (["--backends", "tensorflow"], "unknown tensorflow"),
        (["--backends", "onnxruntime", "--precisions", "bfloat16"], "ONNX Runtime computes in float32"),
        (["--batches", "0"], "must be 1 or more"),
        (["--source", "1080p"], "invalid sizes value"),
    ],
)
def test_wrong_options_are_named(words, message, capsys):
    with pytest.raises(SystemExit):
        engine.main(["--device", "cpu", *words])
    assert message in capsys.readouterr().err


def test_groups_share_their_baseline_and_are_bounded():
    options = engine._parser().parse_args(["--all", "--device", "cpu"])
    groups = list(engine._groups(engine._cases(options), options.together))
    assert all(len({case.baseline() for case in group}) == 1 and len(group) <= options.together for group in groups)
    cases = [case for group in groups for case in group]
    # networks, heights, batches; every precision of two backends, and ONNX Runtime in float32
    precisions = len(possible_precisions(torch.device("cpu")))
    assert len(cases) == len(set(cases)) == len(zoo.NAMES) * 2 * 3 * (2 * precisions + 1)


# --- memory ----------------------------------------------------------------------------------------------------------

SMALL = ["--device", "cpu", "--sizes", "96x64,64x64,80x48", "--height", "32", "--rounds", "3", "--frames", "30"]


def test_soak_script(tmp_path):
    path = tmp_path / "soak.json"
    soak.main([*SMALL, "--most-growth", "0.5", "--json", str(path)])
    content = json.loads(path.read_text())
    rows = content["tables"][0]["rows"]
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert all(row["frames"] == 9 for row in rows)  # three sizes, alone and as pairs
    assert all(row["equal"] == 1.0 and row["resident_mb"] > 100 for row in rows)
    assert abs(content["growth"]["resident_mb"]) < 0.5


def test_soak_finds_what_grows_and_what_changes(monkeypatch):
    kept: list[np.ndarray] = []
    infer = InferenceEngine.__call__

    def leaking(self, images):
        kept.append(np.ones(10**7))  # 480 MB a round: other tests have left some in this process
        return infer(self, images)

    monkeypatch.setattr(InferenceEngine, "__call__", leaking)
    with pytest.raises(SystemExit, match="memory grew by more than 5%"):
        soak.main(SMALL)
    kept.clear()

    def forgetful(self, images):
        kept.append(np.ones(0))
        return infer(self, [np.zeros_like(image) for image in images] if len(kept) > 15 else images)

    monkeypatch.setattr(InferenceEngine, "__call__", forgetful)
    with pytest.raises(SystemExit, match="classes were not those of the first round"):
        soak.main([*SMALL, "--most-growth", "0.5"])


def test_growth_compares_later_rounds_with_earlier_ones():
    rows = [{"mb": value} for value in (900.0, 100.0, 110.0, 99.0, 121.0)]
    assert soak.growth(rows, "mb") == pytest.approx(0.1)


def test_gpu_script_goes_on_and_names_what_failed(tmp_path):
    script = Path(soak.__file__).with_name("on_gpu.sh")
    environment = {**os.environ, "PYTHON": sys.executable, "DEVICE": "nonsense"}
    command = ["bash", str(script), str(tmp_path), "mpi", "soak"]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert child.returncode == 1
    assert "failed or out of time: mpi soak" in child.stdout
    for name in ("mpi", "soak"):
        assert "nonsense" in (tmp_path / f"{name}.log").read_text()


# --- offline ---------------------------------------------------------------------------------------------------------


def test_offline_script(tmp_path):
    path = tmp_path / "offline.json"
    offline.main(["--device", "cpu", "--source", "96x64", "--frames", "6", "--processes", "1,2", "--json", str(path)])
    one, two = json.loads(path.read_text())["tables"][0]["rows"]
    assert (one["processes"], one["frames"], two["processes"], two["frames"]) == (1, 6, 2, 12)
    assert one["over_one"] == 1.0
    assert two["over_one"] == pytest.approx(two["frames_per_second"] / one["frames_per_second"])
    with pytest.raises(SystemExit, match="cuda:77"):
        offline.main(["--device", "cuda:77", "--source", "96x64", "--frames", "2", "--processes", "1"])


# --- ROS -------------------------------------------------------------------------------------------------------------


def test_ros_latency_script(tmp_path):
    pytest.importorskip("rclpy", reason="needs ROS 2 (pip install '.[ros]')")
    path = tmp_path / "ros.json"
    small = ["--width", "64", "--height", "32", "--rate", "20", "--seconds", "0.5"]
    ros_latency.main([*small, "--streams", "transport", "--json", str(path)])
    rows = json.loads(path.read_text())["tables"][0]["rows"]
    assert [row["profile"] for row in rows] == ["no", "yes"]
    assert all(row["sent"] == 10 and row["received"] > 0 for row in rows)


def test_ros_cameras_script(tmp_path):
    """One camera in one process; more of either is more of the same."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (pip install '.[ros]')")
    weights, picture = tmp_path / "small.safetensors", tmp_path / "picture.npy"
    checkpoint.save(weights, zoo.build("fast-mobilenetv2").eval(), input_height=64)
    np.save(picture, np.zeros((32, 64, 3), np.uint8))
    arguments = argparse.Namespace(cameras=1, rate=20.0, seconds=0.5, weights=str(weights), device="cpu")
    row = ros_cameras.row(arguments, "one process", [ros_cameras.measure(arguments, picture, "one process")])
    assert row["way"] == "1, one process"
    assert 0 < row["slowest_s"] == row["frames_s"] <= 20
    assert 0 < row["shared_mib"] < row["resident_mib"]
    assert row["cpu_ms"] > 0


def test_footprint_script(tmp_path):
    pytest.importorskip("rclpy", reason="needs ROS 2 (pip install '.[ros]')")
    from onnx_models import declared, model, written

    exported = written(declared(model()), tmp_path / "small.onnx", record={"max_side": 1024})
    path = tmp_path / "footprint.json"
    small = ["--repeats", "1", "--seconds", "0.5", "--source", "96x64"]
    footprint.main(["--runtimes", "light", "--exported", str(exported), *small, "--json", str(path)])
    (row,) = json.loads(path.read_text())["tables"][0]["rows"]
    assert (row["runtime"], row["weights"]) == ("light", "small.onnx")
    assert 50 < row["installed_mb"] < footprint.installed_bytes("torch") / 1e6
    assert row["import_s"] > 0
    assert row["cpu_s"] > 0
    assert row["active_s"] > 0
    assert 0 < row["private_mb"] < row["resident_mb"]
    assert 0 < row["frames_private_mb"] < row["frames_resident_mb"]


# --- int8 ------------------------------------------------------------------------------------------------------------


def test_int8_script(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install sfi_ros[export])")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (pip install sfi_ros[export])")
    from onnx_models import convolutions, declared, written

    from benchmarks import int8

    source = written(declared(convolutions(3)), tmp_path / "float32.onnx")
    path = tmp_path / "int8.json"
    small = ["--size", "48x32", "--float-layers", "0,1", "--rounds", "1", "--output", str(tmp_path / "out")]
    int8.main(["--exported", str(source), *small, "--json", str(path)])
    rows = json.loads(path.read_text())["tables"][0]["rows"]
    assert [row["file"] for row in rows] == ["float32.onnx", "float-0.onnx", "float-1.onnx"]
    assert (rows[0]["ratio"], rows[0]["equal_classes"], rows[0]["mask_iou"]) == (1.0, 1.0, 1.0)
    assert all(row["cpu_ms"] > 0 and 0.8 < row["equal_classes"] <= 1 for row in rows)
