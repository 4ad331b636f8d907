"""`--ray`: two workers give what one process gives, even if one is lost in mid-file. All traffic is loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT
from offline_harness import count, tree, write_photos, write_video

from sfi_ros.errors import OptionError, UnavailableError
from sfi_ros.offline import fleet
from sfi_ros.offline.engine_options import EngineOptions
from sfi_ros.offline.task import Report, stretches

pytest_plugins = ["offline_harness"]


@pytest.fixture(scope="module")
def cluster():
    """Two machines of one CPU each, on this one."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install sfi_ros[fleet])")
    # Ray reads these at its import: loopback only, no statistics, and a token that is not written to the home folder.
    os.environ.update(fleet._LOOPBACK_ONLY | fleet._NO_STATISTICS)
    os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    os.environ["PYTHONPATH"] = str(ROOT)
    from ray.cluster_utils import Cluster

    machine = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**machine, "include_dashboard": False})
    try:
        cluster.add_node(**machine)
        yield cluster
    finally:
        cluster.shutdown()


def test_a_machine_that_is_lost_in_mid_file(tmp_path, sfi, cluster, capsys):
    """Its stretch is done again by the other one; what cannot be read is named; the files are those of one process."""
    video, photos = write_video(tmp_path / "drive.mp4", 240), write_photos(tmp_path / "camera", 6)
    (photos / "0003.png").write_bytes(b"damaged")
    sources = (video, photos, tmp_path / "absent.mp4")
    assert sfi("run", *sources, "-o", tmp_path / "one") == 1
    out = tmp_path / "many"
    lost = threading.Thread(target=_lose_a_machine, args=(cluster, out / "drive" / "foreground"))
    lost.start()
    capsys.readouterr()
    assert sfi("run", *sources, "-o", out, "--ray", cluster.address) == 1
    lost.join()
    said = capsys.readouterr().err
    assert "absent.mp4 does not exist" in said and f"skipped {photos / '0003.png'}" in said
    assert said.count("error:") == 1 and said.count("skipped /") == 1, said
    assert "/100" not in said  # rich's total where none is known
    assert tree(out) == tree(tmp_path / "one")
    summary = json.loads((out / "drive" / "summary.json").read_text())
    assert summary["frames"] == 240 and not summary["interrupted"]
    assert len(cluster.worker_nodes) == 0, "a machine was lost"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert sfi("run", video, photos, "-o", out, "--ray", cluster.address) == 0
    assert "is there already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def _lose_a_machine(cluster, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while count(folder) < 10 and time.monotonic() < deadline:
        time.sleep(0.05)
    (node,) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)


def test_without_the_option_ray_is_not_imported(tmp_path, weights):
    program = (
        "import sys; from sfi_ros.cli import main; status = main(sys.argv[1:]);"
        "sys.exit(status or any(name.split('.')[0] == 'ray' for name in sys.modules))"
    )
    command = [
        sys.executable,
        "-c",
        program,
        "run",
        "synthetic",
        "-o",
        str(tmp_path),
        "--limit",
        "1",
        "--device",
        "cpu",
    ]
    subprocess.run([*command, "--weights", str(weights)], cwd=ROOT, check=True)


def test_a_numbered_gpu_is_refused():
    with pytest.raises(OptionError, match="name --device cuda, not cuda:1"):
        list(fleet.work([], EngineOptions(device="cuda:1"), fleet.LOCAL, Report()))


class _Cluster:
    """What Ray says about machines."""

    def __init__(self, *machines: dict[str, float]):
        self._machines = machines

    def nodes(self):
        return [{"Alive": True, "Resources": machine} for machine in self._machines]


def test_what_a_job_takes_of_a_machine():
    small, gpu = {"CPU": 4.0}, {"CPU": 32.0, "GPU": 2.0}
    cpu = {"num_cpus": 1, "num_gpus": 0}
    assert fleet._resources(_Cluster(small), EngineOptions()) == cpu
    assert fleet._resources(_Cluster(small, gpu), EngineOptions(device="cpu")) == cpu
    assert fleet._resources(_Cluster(small), EngineOptions(threads=2)) == {"num_cpus": 2, "num_gpus": 0}
    assert fleet._resources(_Cluster(small, gpu), EngineOptions()) == {"num_cpus": 8, "num_gpus": 1}
    assert fleet._workers(_Cluster(small, gpu), cpu) == 36
    assert fleet._workers(_Cluster(small, gpu), {"num_cpus": 8, "num_gpus": 1}) == 2
    with pytest.raises(UnavailableError, match="no machine of the Ray cluster has a GPU"):
        fleet._resources(_Cluster(small), EngineOptions(device="cuda"))
    with pytest.raises(UnavailableError, match="no machine of the Ray cluster has 8 CPU"):
        fleet._workers(_Cluster(small), {"num_cpus": 8, "num_gpus": 0})


@pytest.mark.parametrize(
    ("length", "count", "expected"),
    [
        (0, 4, []),
        (99, 4, []),
        (100, 4, []),
        (101, 4, [(0, 100), (100, None)]),
        (1000, 2, [(0, 500), (500, None)]),
        (1000, 1, []),
        (250, 8, [(0, 100), (100, 200), (200, None)]),
    ],
)
def test_stretches_take_everything_once(length, count, expected):
    assert stretches(length, 100, count) == expected
    assert len(stretches(10**6, 100, 1000)) == 16
