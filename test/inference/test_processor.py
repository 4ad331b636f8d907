"""What the processor can do, and what an engine makes of it: tried with the answers of other processors, too."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from sfi_ros.cli import main
from sfi_ros.errors import OptionError
from sfi_ros.inference import InferenceEngine, processor
from sfi_ros.inference.device import choose_precision, possible_precisions
from sfi_ros.inference.processor import Processor, this_processor
from sfi_ros.synthetic import SyntheticStreet

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ZEN_5 = Processor("Zen 5", "AVX512", has_onednn=True, has_bfloat16=True, has_fast_bfloat16=True)
SKYLAKE = Processor("Skylake", "AVX512", has_onednn=True, has_bfloat16=True, has_fast_bfloat16=False)
HASWELL = Processor("Haswell", "AVX2", has_onednn=True, has_bfloat16=False, has_fast_bfloat16=False)
JETSON = Processor("aarch64", "DEFAULT", has_onednn=False, has_bfloat16=False, has_fast_bfloat16=False)

ON_X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.fixture
def replace_processor(monkeypatch):
    """Replace the answer that everything else relies on."""
    return lambda other: monkeypatch.setattr(processor, "this_processor", lambda: other)


@pytest.mark.parametrize(
    ("other", "possible"),
    [
        (ZEN_5, ["bfloat16", "float32"]),
        (SKYLAKE, ["float32", "bfloat16"]),
        (HASWELL, ["float32"]),
        (JETSON, ["float32"]),
    ],
)
def test_auto_is_the_fastest_and_every_possible_precision_can_be_named(replace_processor, other, possible):
    replace_processor(other)
    assert possible_precisions(CPU) == possible
    assert choose_precision("auto", CPU) == getattr(torch, possible[0])
    for name in possible:
        assert choose_precision(name, CPU) == getattr(torch, name)
    assert choose_precision("auto", CUDA) == torch.float16
    assert choose_precision("bfloat16", CUDA) == torch.bfloat16


@pytest.mark.parametrize(
    ("other", "precision", "message"),
    [
        (
            HASWELL,
            "bfloat16",
            r"precision 'bfloat16' is not possible on Haswell \(AVX2, no bfloat16\): it needs AVX-512, .*; use auto or "
            "float32$",
        ),
        (
            JETSON,
            "bfloat16",
            r"on aarch64 \(DEFAULT, no bfloat16, no oneDNN\): .* a PyTorch built with oneDNN; use auto",
        ),
        (ZEN_5, "float16", r"'float16' .* Zen 5 \(AVX512, bfloat16\): it needs a CUDA device; .* bfloat16 or float32$"),
        (
            SKYLAKE,
            "float16",
            r"Skylake \(AVX512, slow bfloat16\): .*; use auto or float32 or bfloat16$",
        ),
    ],
)
def test_a_precision_that_is_not_possible_is_refused(replace_processor, other, precision, message):
    replace_processor(other)
    for backend in ("pytorch", "compile"):
        with pytest.raises(OptionError, match=message):
            InferenceEngine.load(device="cpu", precision=precision, backend=backend)


def test_sfi_refuses_it_in_one_line(replace_processor, tmp_path, capsys):
    replace_processor(HASWELL)
    out = tmp_path / "out"
    assert main(["run", "synthetic", "-o", str(out), "--device", "cpu", "--precision", "bfloat16"]) == 1
    said = capsys.readouterr()
    assert (said.out + said.err).strip().startswith("error: precision 'bfloat16' is not possible on Haswell")
    assert (said.out + said.err).strip().count("\n") == 0
    assert not out.exists()


@pytest.mark.parametrize("other", [HASWELL, JETSON])
def test_an_engine_without_it_gives_the_same(replace_processor, other):
    image = SyntheticStreet(seed=2, width=320, height=200).frame(3).image
    expected = InferenceEngine.load(device="cpu", precision="float32", input_height=96)(image)
    replace_processor(other)
    engine = InferenceEngine.load(device="cpu", input_height=96)
    assert engine.precision == "float32"
    scene = engine(image)
    assert len(np.unique(scene.background)) == 3
    assert (scene.background == expected.background).mean() > 0.999
    assert (scene.foreground == expected.foreground).mean() > 0.999


def test_answers_agree_with_pytorch():
    here = this_processor()
    assert here.name
    assert here.instructions == torch.backends.cpu.get_cpu_capability()
    if ON_X86:  # every PyTorch for it has oneDNN; if not, the primitives have changed and the engine has become slow
        assert here.has_onednn == torch.backends.mkldnn.is_available()
        assert here.has_bfloat16 == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert here.has_bfloat16 or not here.has_fast_bfloat16
    assert here.has_onednn or not here.has_bfloat16


def test_asking_leaves_the_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    this_processor.__wrapped__()
    assert torch.equal(torch.rand(3), expected)


def test_a_pytorch_without_the_primitives_has_no_onednn(monkeypatch):
    """As builds for Apple and some boards: oneDNN is absent, or it lacks what PyTorch for x86 has."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert this_processor.__wrapped__().precisions == ["float32"]
    monkeypatch.undo()
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    here = this_processor.__wrapped__()
    assert not here.has_onednn and not here.has_bfloat16


@pytest.mark.skipif(not ON_X86, reason="AVX2 belongs to x86")
def test_pytorch_can_be_held_to_avx2():
    """`SFI_TEST_CPU=avx2` relies on it, with subprocesses and all."""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    program = (
        "import torch; from sfi_ros.inference.processor import this_processor; p = this_processor(); "
        "print(p.instructions, p.has_onednn, p.precisions)"
    )
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "AVX2 True ['float32']"
