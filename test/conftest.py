"""What all tests share: bounded threads, the processor's limits, and where the real data lies.

`SFI_TEST_CPU=avx2` runs the tests, and every process that they start, as on a processor that has AVX2 and no AVX-512.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores
if os.environ.get("SFI_TEST_CPU") == "avx2":  # PyTorch and oneDNN read these when they compute for the first time
    os.environ.update({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"})
    # Not the usual one: torch.compile would find the kernels of this processor there, and mix them with AVX2's.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / "torchinductor_as_on_avx2")

import pytest
import torch

from sfi_ros.inference.processor import this_processor

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

REFERENCE = ROOT / "test" / "data" / "reference"
"""Outputs of the authors' released code; its README says how they were made."""

torch.set_num_threads(1)

needs_bfloat16 = pytest.mark.skipif(
    not this_processor().has_bfloat16, reason=f"bfloat16 is not possible on {this_processor()}"
)


def pytest_configure() -> None:
    """Refuse a SFI_TEST_CPU that is unknown, or that this processor cannot play."""
    wanted, here = os.environ.get("SFI_TEST_CPU"), this_processor()
    if wanted and (wanted, here.instructions, here.precisions) != ("avx2", "AVX2", ["float32"]):
        raise pytest.UsageError(f"SFI_TEST_CPU={wanted} gives {here}; its only value is avx2, on x86 processors")


def pytest_report_header() -> str:
    """Name the processor: some tests depend on what it can do."""
    return f"processor: {this_processor()}"


@functools.cache
def weights_telling_kinds() -> Path:
    """The default weights, made to tell kinds of objects: any, wherever they do not say which themselves."""
    from sfi_ros.inference import DEFAULT_WEIGHTS
    from sfi_ros.network import checkpoint, zoo

    default = checkpoint.load(DEFAULT_WEIGHTS)
    torch.manual_seed(0)
    network = zoo.build(default.metadata.name, **{**default.metadata.options, "foreground_classes": 3}).eval()
    network.load_state_dict(default.network.state_dict(), strict=False)
    folder = Path(tempfile.mkdtemp(prefix="sfi_ros_test_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / DEFAULT_WEIGHTS.name
    checkpoint.save(path, network, training_data="see the default weights", dtype=torch.float16)
    return path


def shared(relative: str) -> Path:
    """A path below ../shared; skips the test, with the reason, where it is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """What colcon makes of the package: symlink_install -> install folder, each built once."""
    from sfi_ros.ros.wheel_build import build, missing

    if lacking := missing():
        pytest.skip(f"building messages needs {lacking}")
    workspace = tmp_path_factory.mktemp("workspace")
    return functools.cache(lambda symlink_install: build(workspace, symlink_install=symlink_install))
