"""The implementations that the benchmark compares, each in a process."""

import contextlib
import multiprocessing
import statistics

from training.benchmarks.peers import OnnxRuntime, PyTorch, Tf2cv
from training.benchmarks.workers import Exported, KerasResfam, serve

OURS = {
    "tensorflow": (KerasResfam, ("tensorflow", False)),
    "tensorflow-xla": (KerasResfam, ("tensorflow", True)),
    "tensorflow-onednn": (KerasResfam, ("tensorflow", False, False, True)),
    "jax": (KerasResfam, ("jax", True)),
    "torch": (KerasResfam, ("torch", False)),
    "torch-compiled": (KerasResfam, ("torch", False, True)),
    "exported-onnx": (Exported, ()),
}

PEERS = {
    "pytorch": (PyTorch, (False, False)),
    "pytorch-channels-last": (PyTorch, (True, False)),
    "pytorch-compile": (PyTorch, (True, True)),
    "onnxruntime": (OnnxRuntime, ()),
    "timm-channels-last": (PyTorch, (True, False, "timm")),
    "timm-compile": (PyTorch, (True, True, "timm")),
    "tf2cv": (Tf2cv, ()),
}

NETWORKS = {
    "wrn-16-4": ("WideResNet", {"depth": 16, "width": 4}),
    "wrn-28-10": ("WideResNet", {"depth": 28, "width": 10}),
    "dmrnet-56": ("DMRNet", {"depth": 56}),
    "orthoplainnet-44": ("OrthoPlainNet", {"depth": 44}),
    "resnet-110": ("ResNet", {"depth": 110}),
    "resnet-50": ("ResNet50", {"input_shape": (224, 224, 3)}),
    "wide-resnet-50-2": ("WideResNet50_2", {"input_shape": (224, 224, 3)}),
}

# Measured beside a network: one of equal size, or the same without the parts
# that cost time.
VARIANTS = {
    "dmrnet-56": {"resnet-110": NETWORKS["resnet-110"]},
    "orthoplainnet-44": {
        "no penalty": ("OrthoPlainNet", {"depth": 44, "orthonormality": 0.0}),
        "no modulation": ("OrthoPlainNet", {"depth": 44, "modulation": False}),
        "neither": (
            "OrthoPlainNet",
            {"depth": 44, "orthonormality": 0.0, "modulation": False},
        ),
    },
}

SMALL = {
    "WideResNet": {"depth": 10, "width": 1},
    "ResNet50": {"input_shape": (32, 32, 3)},
    "WideResNet50_2": {"input_shape": (32, 32, 3)},
}


class Contender:
    """One implementation of one network.

    Args:
        implementation: str. A key of `OURS` or `PEERS`.
        variant: str. The name of a variant of the network, empty for the
            network itself.
        network: pair. The name of a builder and its arguments.
        base: `Contender` that shares its process with this one. The layout of
            memory makes processes faster or slower by a few percent. Defaults
            to `None`, a separate process.
    """

    def __init__(self, implementation, variant, network, base=None):
        self.implementation = implementation
        self.variant = variant
        self.network = network
        self.ours = implementation in OURS
        self.base = base
        self.report, self.samples, self.profiles = {}, {}, {}
        self.process = None

    def __str__(self):
        return " ".join(filter(None, (self.implementation, self.variant)))

    def start(self, precision, batch):
        if self.base is None:
            self._start_process()
        else:
            self.process = self.base.process
            self.connection = self.base.connection
        report = self.ask("prepare", self.network, precision, batch)
        if self.base is not None:  # these were the process's
            for figure in ("import", "package import", "memory"):
                report.pop(figure, None)
        self.report |= report

    def _start_process(self):
        kind = {**OURS, **PEERS}[self.implementation]
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *kind))
        self.process.start()
        theirs.close()

    def ask(self, *request):
        """Sends a request to the process, and returns its answer."""
        if not self.runs():
            return {}
        try:
            self.connection.send((self.variant, *request))
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            answer = {"failed": f"its process ended with code {code}"}
        for state in answer.keys() & {"absent", "failed"}:
            self.report[state] = answer[state]
        return answer

    def runs(self):
        return not self.report.keys() & {"absent", "failed"}

    def sample(self, mode, batch, seconds):
        answer = self.ask("sample", mode, batch, seconds)
        if "seconds" in answer:
            self.samples.setdefault((mode, batch), []).append(answer["seconds"])

    def profile(self, mode, batch):
        answer = self.ask("profile", mode, batch)
        if answer.get("profile"):
            self.profiles[mode, batch] = answer["profile"]

    def measure_peak(self, precision):
        """Keeps the best rate of each way to multiply matrices."""
        best = self.report.setdefault("peak", {})
        rates = self.ask("matrix_peak", precision).get("peak", {})
        for way, rate in rates.items():
            best[way] = max(rate, best.get(way, 0.0))

    def stop(self, at_once=False):
        if self.process is None or self.base is not None:
            return
        if at_once:
            self.process.kill()
        else:
            with contextlib.suppress(OSError):  # it has ended already
                self.connection.send(None)
        self.process.join()
        self.connection.close()

    def median(self, task):
        return statistics.median(self.samples[task])

    def quartiles(self, task):
        samples = self.samples[task]
        if len(samples) < 2:
            return samples[0], samples[0]
        lower, _, upper = statistics.quantiles(samples, method="inclusive")
        return lower, upper


def line_up(name, options):
    """Returns the network in every implementation; its variants in our own."""
    networks = {"": NETWORKS[name], **VARIANTS.get(name, {})}
    if options.quick:
        networks = {k: shallow(*network) for k, network in networks.items()}
    contenders = []
    for implementation in [*options.backends, *options.peers]:
        base = None
        for variant, network in networks.items():
            if not variant or implementation in OURS:
                new = Contender(implementation, variant, network, base)
                base = base or new
                contenders.append(new)
    return contenders


def shallow(builder, arguments):
    return builder, {**arguments, **SMALL.get(builder, {"depth": 8})}
