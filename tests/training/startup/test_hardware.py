import platform
import subprocess
import sys

import pytest

from policies import dtype_policy
from training import train
from training.startup import hardware

MILAN = """\
processor\t: 0
model name\t: AMD EPYC 7B13
flags\t\t: fpu sse4_2 avx2 fma

processor\t: 1
model name\t: AMD EPYC 7B13
"""
GENOA = "model name\t: AMD EPYC\nflags\t\t: avx2 avx512f avx512_bf16\n"
SAPPHIRE = "model name\t: Xeon\nflags\t: avx2 avx512f amx_bf16 amx_tile\n"
SKYLAKE = "model name\t: Xeon\nflags\t: avx2 avx512f\n"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd sve bf16\n"


@pytest.fixture
def on(tmp_path, monkeypatch):
    """Puts the tests on another processor, by what Linux tells of it."""

    def move(text):
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(hardware, "CPUINFO", path)

    return move


@pytest.mark.parametrize(
    ("told", "processor", "bfloat16"),
    [
        (MILAN, "AMD EPYC 7B13 with AVX2", False),
        (GENOA, "AMD EPYC with AVX-512 and bfloat16", True),
        (SAPPHIRE, "Xeon with AMX and bfloat16", True),
        (SKYLAKE, "Xeon with AVX-512", False),
        (GRAVITON, None, True),
        (None, None, None),
    ],
)
def test_processors(told, processor, bfloat16, on):
    on(told)
    assert hardware.computes_bfloat16() is bfloat16
    name = hardware.processor()
    assert name == processor if processor else name and " with " not in name


@pytest.mark.parametrize(
    ("told", "precision", "accelerator", "noted"),
    [
        (MILAN, "mixed_bfloat16", None, True),
        (MILAN, "float32", None, False),
        (MILAN, "mixed_bfloat16", "NVIDIA H100", False),
        (GENOA, "mixed_bfloat16", None, False),
        (None, "mixed_bfloat16", None, False),
    ],
)
def test_bfloat16_without_instructions_for_it_is_noted(
    told, precision, accelerator, noted, on, monkeypatch, capsys
):
    on(told)
    monkeypatch.setattr(hardware, "accelerator", lambda backend: accelerator)
    train.note_precision(precision)
    said = capsys.readouterr().err
    assert ("EPYC 7B13 with AVX2 has no instructions" in said) is noted
    assert noted or not said


def test_a_real_run_notes_it(on, tmp_path, capsys, monkeypatch):
    on(MILAN)
    monkeypatch.setattr(hardware, "accelerator", lambda backend: None)
    with dtype_policy("float32"):  # is back behind the run
        train.main(
            [
                f"--run-dir={tmp_path / 'run'}",
                "--epochs=1",
                "--precision=mixed_bfloat16",
                "--set=builder=ResNet",
                "--set=arguments={'depth': 8}",
                "--set=train_split=train[:128]",
            ]
        )
    assert "no instructions for bfloat16" in capsys.readouterr().err


@pytest.mark.parametrize("answer, calls", [(0, 1), (1, 2)])
def test_a_c_library_that_refuses_is_left_alone(answer, calls, monkeypatch):
    made = []

    class Library:
        def mallopt(self, parameter, value):
            made.append(parameter)
            return answer

    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.30"))
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: Library())
    hardware.keep_freed_memory()
    asked = [hardware.M_MMAP_THRESHOLD, hardware.M_TRIM_THRESHOLD]
    assert made == asked[:calls]


FREED = """
import resource, sys
from training.startup import hardware

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    hardware.keep_freed_memory()
bytearray(b"1") * 2**26
before = faults()
for _ in range(8):
    bytearray(b"1") * 2**26
print(faults() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="of the library in use"
)
def test_freed_memory_is_kept(pytestconfig):
    def faults(memory):
        done = subprocess.run(
            [sys.executable, "-c", FREED, memory],
            cwd=pytestconfig.rootpath,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert faults("given back") > 100  # a page may be of 2 MiB
    assert faults("kept") < 50
