import csv
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_resfam
from training import benchmark
from training.benchmarks import contenders, sampling, tables, workers
from training.benchmarks.contenders import Contender, line_up
from training.benchmarks.profiling import jax_times, named, own_times

pytestmark = pytest.mark.backend_independent

BACKEND = keras.backend.backend()


def contender(implementation, train, variant=""):
    result = Contender(implementation, variant, contenders.NETWORKS["wrn-16-4"])
    result.samples["train", 128] = train
    return result


def run(tmp_path, *arguments):
    """Runs the benchmark's small form; returns its status and its figures."""
    path = tmp_path / "figures.csv"
    status = benchmark.main(["--quick", "--csv", str(path), *arguments])
    with open(path) as file:
        return status, list(csv.DictReader(file))


def test_measures_one_backend_beside_absent_peers(tmp_path, capsys):
    status, rows = run(
        tmp_path,
        *("--networks", "wrn-16-4"),
        *("--backends", BACKEND),
        *("--precisions", "bfloat16"),
        *("--peers", "onnxruntime"),
        "--profile",
    )
    assert status == 0
    ours = [row for row in rows if row["implementation"] == BACKEND]
    operations = [r for r in ours if r["measure"].startswith("operation of ")]
    ours = [row for row in ours if row not in operations]
    figures = {
        (row["measure"], row["batch"]): float(row["value"]) for row in ours
    }
    assert figures.keys() == {
        ("train", "8"),
        ("infer", "8"),
        ("infer", "1"),
        ("memory", ""),
        ("import", ""),
        ("package import", ""),
        ("build", ""),
        ("first step", ""),
        ("flops", ""),
    }
    assert all(value > 0 for value in figures.values())
    assert figures["infer", "1"] < figures["train", "8"]
    assert figures["memory", ""] > 1e8
    # Eager torch has nothing to compile: its first step is one like others.
    least = figures["train", "8"] * (0.2 if BACKEND == "torch" else 1)
    assert figures["first step", ""] > least
    assert f"keras=={keras.__version__}" in ours[0]["versions"]
    for mode, batch in ("train", "8"), ("infer", "8"), ("infer", "1"):
        profile = {
            row["note"]: float(row["value"])
            for row in operations
            if (row["measure"], row["batch"]) == ("operation of " + mode, batch)
        }
        # Seconds, whatever the profiler counts in.
        assert 0.01 < sum(profile.values()) / figures[mode, batch] < 100
        assert min(profile.values()) >= 0
        assert any("conv" in name.lower() for name in profile)

    (peer,) = (row for row in rows if row["implementation"] == "onnxruntime")
    assert peer["measure"] == "absent"
    assert peer["note"]
    printed = capsys.readouterr().out
    assert "wrn-16-4, bfloat16, shallow" in printed
    assert f"train 8: {BACKEND} is alone" in printed
    assert re.search(
        rf"{BACKEND}, infer 1: operations \d+.\d+ ms, .+ \d+%, ", printed
    )
    assert f"    absent: {peer['note']}\n" in printed


@pytest.mark.parametrize(
    ("implementation", "asked"),
    [("tensorflow", "0"), ("tensorflow-onednn", "1")],
)
def test_tensorflow_is_measured_with_onednn_too(
    implementation, asked, monkeypatch
):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")  # as the user has it
    monkeypatch.setenv("KERAS_BACKEND", BACKEND)
    kind, options = contenders.OURS[implementation]
    assert options[0] == "tensorflow"
    kind(BACKEND, *options[1:]).load()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == asked


def test_operations_take_their_own_time():
    """What calls others, and what no pattern matches, takes the rest."""
    threads = [
        [
            ("a:Conv", 10, 30),
            ("run", 0, 100),
            ("b:Call", 50, 40),
            ("c:Conv", 50, 5),
            ("d:Add", 60, 30),
        ],
        [("e:Add", 0, 7)],
    ]
    times = own_times(threads, named(r"[^:]+:(\w+)"))
    assert times == {"Conv": 35, "Call": 5, "Add": 37}


def plane(name, **lines):
    """A plane of a trace by JAX: lines of kernels and their nanoseconds."""
    return SimpleNamespace(
        name=name,
        lines=[
            SimpleNamespace(
                name=line,
                events=[
                    SimpleNamespace(name=n, start_ns=i, duration_ns=ns)
                    for i, (n, ns) in enumerate(events)
                ],
            )
            for line, events in lines.items()
        ],
    )


def test_kernels_of_a_gpu_are_told_by_what_they_do():
    planes = [
        plane("/host:CPU", tf_XLAEigen=[("fusion.3", 90)]),
        plane(
            "/device:GPU:0",
            **{
                "Stream #14(Compute)": [
                    ("sm80_xmma_wgrad_implicit_gemm_64x32x64", 40),
                    ("sm90_xmma_wgrad_implicit_gemm_128x64x64", 2),
                    ("void cutlass::Kernel<fprop_optimized_x4>(Params)", 5),
                    ("input_reduce_fusion_12_1", 7),
                    ("input_reduce_fusion", 3),
                ],
                "Stream #15(MemcpyH2D)": [("MemcpyH2D", 1)],
                "XLA Modules": [("jit_train_step", 400)],
            },
        ),
    ]
    assert jax_times(planes) == {
        "convolution wgrad": 42,
        "convolution fprop": 5,
        "input_reduce_fusion": 10,
        "MemcpyH2D": 1,
    }


def test_variants_are_measured_in_our_own_implementations():
    options = benchmark.parse_arguments(
        ["--quick", "--backends", "jax", "torch", "--peers", "pytorch"]
    )
    contenders = line_up("dmrnet-56", options)
    assert [str(c) for c in contenders] == [
        "jax",
        "jax resnet-110",
        "torch",
        "torch resnet-110",
        "pytorch",
    ]
    assert contenders[1].network == ("ResNet", {"depth": 8})
    bases = [None, contenders[0], None, contenders[2], None]
    assert [c.base for c in contenders] == bases


def test_a_variant_shares_the_process_of_its_base():
    base = Contender(BACKEND, "", ("WideResNet", {"depth": 10, "width": 1}))
    variant = Contender(BACKEND, "deep", ("ResNet", {"depth": 8}), base)
    broken = Contender(BACKEND, "broken", ("ResNet", {"depth": 7}), base)
    every = base, variant, broken
    for each in every:
        each.start("float32", 2)
        each.sample("train", 2, 0.01)
    assert {each.process.pid for each in every} == {base.process.pid}
    assert [each.runs() for each in every] == [True, True, False]
    assert "`depth`" in broken.report["failed"]
    assert base.report["memory"] > 1e8
    assert "memory" not in variant.report
    assert base.report["flops"] != variant.report["flops"]
    base.sample("train", 2, 0.01)
    assert [len(c.samples.get(("train", 2), ())) for c in every] == [2, 1, 0]
    for each in every:
        each.stop()
    assert base.process.exitcode == 0


@pytest.mark.skipif(BACKEND != "torch", reason="wants converters of its own")
def test_exported_networks_are_measured_in_inference(tmp_path):
    status, rows = run(
        tmp_path, "--backends", "exported-onnx", "--peers", "--profile"
    )
    assert status == 0
    measured = {(row["measure"], row["batch"]) for row in rows}
    assert {("infer", "8"), ("infer", "1")} <= measured
    assert ("train", "8") not in measured


@pytest.mark.skipif(BACKEND != "torch", reason="wants converters of its own")
def test_exported_networks_compute_the_same():
    ours = workers.Exported()
    ours.load()
    ours.build("DMRNet", {"depth": 8}, "float32")
    network = ours.model
    ours.to_inference()
    for size in 3, 1:
        x, _ = workers.batch_of(size, (32, 32, 3))
        np.testing.assert_allclose(
            ours.infer(x), network.predict_on_batch(x), rtol=1e-3, atol=1e-4
        )


def test_a_backend_that_fails_is_reported(tmp_path, monkeypatch, capsys):
    broken = {"broken": ("WideResNet", {"depth": 10, "width": -1})}
    monkeypatch.setattr(contenders, "NETWORKS", broken)
    monkeypatch.setattr(contenders, "SMALL", {"WideResNet": {}})
    status, rows = run(
        tmp_path, "--networks", "broken", "--backends", BACKEND, "--peers"
    )
    assert status == 1
    assert "failed" in [row["measure"] for row in rows]
    assert "`width`" in capsys.readouterr().out


def test_a_process_that_dies_is_reported():
    victim = Contender(BACKEND, "", ("WideResNet", {"depth": 10, "width": 1}))
    victim.start("float32", 2)
    assert victim.runs()
    victim.process.kill()
    assert "failed" in victim.ask("sample", "train", 2, 0.01)
    assert not victim.runs()
    victim.sample("train", 2, 0.01)
    assert not victim.samples
    victim.stop()


def test_an_interrupted_benchmark_keeps_what_it_has(tmp_path):
    """By a real signal to all its processes, as `timeout` sends it."""
    path = tmp_path / "figures.csv"
    process = subprocess.Popen(
        [
            *(sys.executable, benchmark.__file__, "--quick"),
            *("--backends", BACKEND, "--peers", "--rounds", "1000000"),
            *("--csv", str(path)),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stderr:  # the progress bar, each of its states
        if re.search(r"train 8, .* ([2-9]|\d\d+)/1000000 ", line):
            break
    os.killpg(process.pid, signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"train 8: {BACKEND} is alone" in printed
    with open(path) as file:
        (row,) = (r for r in csv.DictReader(file) if r["measure"] == "train")
    assert 1 < int(row["rounds"]) < 1000000
    assert float(row["value"]) > 0


def test_everyone_has_a_turn_each_round():
    order = "".join(sampling.turns(["a", "b", "c"], 60))
    rounds = [order[k : k + 3] for k in range(0, len(order), 3)]
    assert {"".join(sorted(turn)) for turn in rounds} == {"abc"}
    # In every order: nobody follows the same one always.
    assert len(set(rounds)) == 6
    assert order == "".join(sampling.turns(["a", "b", "c"], 60))


def test_ratios_are_of_medians(capsys):
    contenders = [
        contender("jax", [2.0, 9.0, 1.0]),
        contender("torch", [3.0, 3.0, 3.0]),
        contender("torch", [2.0, 2.0, 2.0], "resnet-110"),
        contender("pytorch", [5.0, 5.0, 4.0]),
        contender("pytorch-compile", [3.0, 1.0, 8.0]),
    ]
    tables.print_ratios(contenders, 128)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "train 128: jax is 1.50x pytorch-compile, 2.50x pytorch, "
        "1.00x torch resnet-110",
        "    torch, time in comparison: +50.0% to resnet-110",
    ]


def test_speed_and_spread():
    one = contender("jax", [0.5, 0.4, 0.3, 0.2, 0.9])
    assert tables.speed_cell(one, ("train", 128)) == "320/s  50%"
    assert tables.speed_cell(one, ("infer", 1)) == "-"


def test_share_of_the_peak(capsys):
    one, other = (contender(name, [0.5]) for name in ("jax", "torch"))
    peer = contender("pytorch", [0.5])  # none is measured of it
    variant = contender("jax", [1.0], "deep")  # in the first one's process
    tables.print_peak([one, peer], 128)
    assert not capsys.readouterr().out
    one.report = {"peak": {"matrix product": 60e12}, "flops": 2e10}
    variant.report = {"flops": 2e10}
    tables.print_peak([one, variant, peer], 128)
    ways = {"matrix product": 50e12, "1 x 1 convolution": 80e12}
    other.report = {"peak": ways, "flops": 2e10}
    one.samples["infer", 128] = [0.1]
    tables.print_peak([one, peer, other], 128)
    assert capsys.readouterr().out.splitlines() == [
        "peak: 60,000 GFLOP/s, jax's matrix product",
        "jax, train: 15,360 GFLOP/s, 26% of the peak",
        "jax deep, train: 7,680 GFLOP/s, 13% of the peak",
        "peak: 80,000 GFLOP/s, torch's 1 x 1 convolution",
        "jax, train: 15,360 GFLOP/s, 19% of the peak",
        "torch, train: 15,360 GFLOP/s, 19% of the peak",
        "jax, infer: 25,600 GFLOP/s, 32% of the peak",
    ]


def test_the_best_peak_counts(monkeypatch):
    one = contender("torch", [0.5])
    answers = iter([{"a": 2.0, "b": 1.0}, {"a": 1.0, "b": 3.0}])
    monkeypatch.setattr(one, "ask", lambda *_: {"peak": next(answers)})
    one.measure_peak("float32")
    one.measure_peak("float32")
    monkeypatch.setattr(one, "ask", lambda *_: {"failed": "it died"})
    one.measure_peak("float32")
    assert one.report["peak"] == {"a": 2.0, "b": 3.0}


def test_images_are_those_of_the_network():
    session = workers.Session(workers.KerasResfam(BACKEND, jit=False))
    small = ("WideResNet", {"depth": 10, "width": 1, "input_shape": (8, 8, 3)})
    report = session.prepare(small, "float32", 2)
    model = session.implementation.model
    assert model.input_shape == (None, 8, 8, 3)
    assert report["flops"] == 2 * keras_resfam.count_multiply_adds(model)
    assert session.sample("train", 2, 0.001)["seconds"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_peak_memory_is_what_the_kernel_says():
    status = Path("/proc/self/status").read_text()
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    assert workers.peak_resident() == pytest.approx(
        int(kibibytes) * 1024, rel=0.05
    )


def test_pytorch_rendering_computes_the_same_dmrnet():
    torch = pytest.importorskip("torch")
    from training.benchmarks import torch_networks

    model = keras_resfam.DMRNet(
        14, include_preprocessing=False, classifier_activation=None
    )
    net = torch_networks.pytorch_network("DMRNet", {"depth": 14}).eval()
    rng = np.random.default_rng(0)
    count = 0
    for name, module in net.named_modules():
        if not isinstance(
            module, torch.nn.Conv2d | torch.nn.BatchNorm2d | torch.nn.Linear
        ):
            continue
        layer = model.get_layer(name.removeprefix("blocks.").replace(".", "_"))
        for weight in layer.weights:
            if weight.name in ("gamma", "moving_variance"):
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        state = [torch.from_numpy(np.copy(w)) for w in layer.get_weights()]
        if isinstance(module, torch.nn.Conv2d):
            state[0] = state[0].permute(3, 2, 0, 1)
        elif isinstance(module, torch.nn.Linear):
            state[0] = state[0].T
        for own, value in zip(
            module.state_dict().values(), state, strict=False
        ):
            own.copy_(value)
        count += sum(math.prod(w.shape) for w in layer.trainable_weights)
    assert count == sum(p.numel() for p in net.parameters())

    x = rng.normal(size=(2, 32, 32, 3)).astype("float32")
    with torch.no_grad():
        theirs = net(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    ours = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(theirs, ours, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "builder, arguments",
    [
        ("WideResNet", {"depth": 10, "width": 2}),
        ("ResNet", {"depth": 8}),
    ],
)
def test_pytorchcv_has_networks_of_the_same_size(builder, arguments):
    pytest.importorskip("pytorchcv")
    from training.benchmarks import torch_networks

    net = torch_networks.pytorch_network(builder, arguments)
    theirs = sum(p.numel() for p in net.parameters())
    model = getattr(keras_resfam, builder)(**arguments)
    ours = sum(math.prod(w.shape) for w in model.trainable_weights)
    assert abs(theirs / ours - 1) < 0.05


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("builder", ["ResNet50", "WideResNet50_2"])
def test_imagenet_forms_of_others_have_the_same_size(
    library, builder, quick_initializers
):
    pytest.importorskip("torch")
    from peers import peer
    from training.benchmarks import torch_networks

    peer(library)
    find = {
        "torchvision": torch_networks.pytorch_network,
        "timm": torch_networks.timm_network,
    }
    theirs = find[library](builder, {}).parameters()
    ours = getattr(keras_resfam, builder)().trainable_weights
    assert sum(p.numel() for p in theirs) == sum(
        math.prod(w.shape) for w in ours
    )


def test_no_like():
    pytest.importorskip("torch")
    from training.benchmarks import torch_networks

    assert torch_networks.pytorch_network("OrthoPlainNet", {}) is None
    assert torch_networks.timm_network("WideResNet", {"depth": 10}) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--networks", "vgg"],
        ["--backends", "mxnet"],
        ["--color", "red"],
        ["--csv", "no/such.csv"],
        ["--csv", "."],
        ["--batch", "0"],
        ["--rounds", "0"],
        ["--seconds", "-1"],
    ],
)
def test_unknown_options_are_errors(arguments):
    with pytest.raises(SystemExit) as error:
        benchmark.parse_arguments(arguments)
    assert error.value.code == 2
