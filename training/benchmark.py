"""Measures this package beside its peers, on this machine.

    python training/benchmark.py --csv benchmark.csv
    python training/benchmark.py --networks dmrnet-56 --precisions bfloat16
    python training/benchmark.py --quick

Training steps (`fit`, from NumPy arrays) and inference (`predict_on_batch` of
the model with its batch normalizations folded, from NumPy to NumPy), on every
backend that is installed, on torch also compiled, and inference of the folded
model exported to ONNX Runtime, against PyTorch (pytorchcv's networks and a
plain rendering of DMRNet), ONNX Runtime and tf2cv. What is not installed, or
has no such network, is reported as absent.

Each implementation is a process of its own, with the network and what it is
compared with there. They take turns, a sample each, while the others wait:
what else the machine does falls on all of them alike.
Compilation and warm-up are not in the samples. A figure is the median of all
rounds; behind it the distance between the quartiles, in percent. Ctrl-C, or
SIGTERM, ends the benchmark with what has been measured until then.
"""

import argparse
import contextlib
import csv
import multiprocessing
import os
import pathlib
import platform
import random
import signal
import statistics
import sys

from tqdm import tqdm

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training.benchmarks.peers import OnnxRuntime, PyTorch, Tf2cv
from training.benchmarks.workers import Exported, KerasResfam, serve
from training.startup import command_line, hardware

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
    "tf2cv": (Tf2cv, ()),
}

NETWORKS = {
    "wrn-16-4": ("WideResNet", {"depth": 16, "width": 4}),
    "wrn-28-10": ("WideResNet", {"depth": 28, "width": 10}),
    "dmrnet-56": ("DMRNet", {"depth": 56}),
    "orthoplainnet-44": ("OrthoPlainNet", {"depth": 44}),
    "resnet-110": ("ResNet", {"depth": 110}),
}
# Measured in turn with a network: one of equal size, or the same without
# what costs time.
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
SMALL = {"WideResNet": {"depth": 10, "width": 1}}
DEFAULTS = {
    "precisions": ["float32", "bfloat16"],
    "batch": 128,
    "rounds": 9,
    "seconds": 1.0,
}
QUICK = {"precisions": ["float32"], "batch": 8, "rounds": 2, "seconds": 0.05}
# What else a report holds: its unit in the table, and how many make one unit.
FIGURES = {
    "memory": ("MiB", 2**20),
    "import": ("s", 1),
    "package import": ("ms", 1e-3),  # of these seconds, over Keras's
    "build": ("s", 1),
    "first step": ("s", 1),
}
OPERATIONS = 8  # as many of a profile are printed
CSV_FIELDS = (
    "network variant precision implementation ours measure batch "
    "value lower upper rounds note versions machine"
).split()


class Contender:
    """One implementation of one network.

    Args:
        implementation: String. A key of `OURS` or `PEERS`.
        variant: String. What the network is called in comparison with its
            `base`; empty for that one.
        network: Pair of a builder's name and arguments.
        base: `Contender` whose process this one shares: the memory of two
            processes lies better or worse, by a few percent of their time.
            Defaults to `None`, a process of its own.
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
        """Sends a request and waits for the answer, while the process is."""
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

    def stop(self, at_once=False):
        if self.process is None or self.base is not None:
            return
        if at_once:
            self.process.kill()
        else:
            with contextlib.suppress(OSError):  # it has ended by itself
                self.connection.send(None)
        self.process.join()

    def median(self, task):
        return statistics.median(self.samples[task])

    def quartiles(self, task):
        samples = self.samples[task]
        if len(samples) < 2:
            return samples[0], samples[0]
        lower, _, upper = statistics.quantiles(samples, method="inclusive")
        return lower, upper


def measure(contenders, precision, options):
    """Measures a network by every implementation, in turn.

    Returns:
        Whether nothing interrupted it.
    """
    whole = False
    try:
        for contender in contenders:
            contender.start(precision, options.batch)
        sample_all(contenders, precision, options)
        whole = True
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
    finally:
        for contender in contenders:
            contender.stop(at_once=not whole)
    return whole


def line_up(name, options):
    """The network in every implementation; its variants in our own."""
    networks = {"": NETWORKS[name], **VARIANTS.get(name, {})}
    if options.quick:
        networks = {k: quick(*network) for k, network in networks.items()}
    contenders = []
    for implementation in [*options.backends, *options.peers]:
        base = None
        for variant, network in networks.items():
            if not variant or implementation in OURS:
                new = Contender(implementation, variant, network, base)
                base = base or new
                contenders.append(new)
    return contenders


def sample_all(contenders, precision, options):
    profiled = [c for c in contenders if c.ours and options.profile]
    for mode, batch in tasks(options.batch):
        if (mode, batch) == ("infer", options.batch):
            for contender in contenders:
                contender.ask("to_inference")
        for contender in tqdm(
            turns(contenders, options.rounds),
            desc=f"{mode} {batch}, {precision}",
            total=options.rounds * len(contenders),
            leave=False,
        ):
            contender.sample(mode, batch, options.seconds)
        for contender in profiled:
            contender.profile(mode, batch)
    for contender in contenders:
        if contender.ours and not options.quick:
            contender.report |= contender.ask("matrix_peak", precision)


def turns(contenders, rounds):
    """Yields every contender once a round, in an order drawn anew.

    Whoever follows another process finds its threads and caches at work.
    """
    draw = random.Random(0)
    for _ in range(rounds):
        yield from draw.sample(contenders, len(contenders))


def tasks(batch):
    """What is measured; once each, where the batch is of one image."""
    every = [("train", batch), ("infer", batch), ("infer", 1)]
    return list(dict.fromkeys(every))


def quick(builder, arguments):
    return builder, {**arguments, **SMALL.get(builder, {"depth": 8})}


def print_table(contenders, batch):
    heads = [f"{mode} {size}" for mode, size in tasks(batch)]
    heads += [f"{figure} {unit}" for figure, (unit, _) in FIGURES.items()]
    print(f"{'':34}" + "".join(f"{head:>18}" for head in heads))
    for contender in contenders:
        if contender.runs():
            cells = [speed(contender, task) for task in tasks(batch)]
            cells += [cost(contender, figure) for figure in FIGURES]
            line = "".join(f"{cell:>18}" for cell in cells)
        else:
            (state,) = {"absent", "failed"} & contender.report.keys()
            line = f"    {state}: {contender.report[state]}"
        print(f"{contender!s:34}{line}")


def speed(contender, task):
    """Images a second, or milliseconds for one image, and the spread."""
    if task not in contender.samples:
        return "-"
    median = contender.median(task)
    lower, upper = contender.quartiles(task)
    size = task[1]
    figure = f"{size / median:.0f}/s" if size > 1 else f"{median * 1e3:.2f} ms"
    return f"{figure} {(upper - lower) / median:4.0%}"


def cost(contender, figure):
    _, scale = FIGURES[figure]
    value = contender.report.get(figure)
    return "-" if value is None else f"{value / scale:.2f}"


def print_ratios(contenders, batch):
    """How many times as fast the best backend is as each of the others."""
    for task in tasks(batch):
        measured = [c for c in contenders if task in c.samples]
        measured.sort(key=lambda c: c.median(task))
        ours = [c for c in measured if c.ours and not c.variant]
        if not ours:
            continue
        best, time = ours[0], ours[0].median(task)
        rivals = [c for c in measured if not c.ours] + [
            next(c for c in measured if c.variant == variant)
            for variant in dict.fromkeys(
                c.variant for c in measured if c.variant
            )
        ]
        figures = [f"{c.median(task) / time:.2f}x {c}" for c in rivals]
        print(
            f"{task[0]} {task[1]}: {best} is " + ", ".join(figures or ["alone"])
        )
        for implementation in dict.fromkeys(c.implementation for c in ours):
            print_variants(implementation, measured, task)


def print_variants(implementation, measured, task):
    """What a network costs in comparison with its variants, in one backend."""
    same = {
        c.variant: c.median(task)
        for c in measured
        if c.implementation == implementation
    }
    time = same.pop("")
    if same:
        figures = [f"{time / t - 1:+.1%} to {v}" for v, t in same.items()]
        print(
            f"    {implementation}, time in comparison: " + ", ".join(figures)
        )


def print_peak(contenders, batch):
    """The share that is reached of what a large matrix product reaches.

    Of the backends' products the fastest is meant. The share can still be
    above 1: some convolutions take fewer multiplications.
    """
    contenders = [c for c in contenders if "peak" in c.report]
    peak = max((c.report["peak"] for c in contenders), default=None)
    # The backward pass multiplies twice as much as the forward pass.
    for mode, passes in (("train", 3), ("infer", 1)):
        for contender in contenders:
            if (mode, batch) in contender.samples:
                flops = passes * contender.report["flops"] * batch
                reached = flops / contender.median((mode, batch))
                print(
                    f"{contender}, {mode}: {reached / 1e9:,.0f} of "
                    f"{peak / 1e9:,.0f} GFLOP/s, {reached / peak:.0%}"
                )


def print_profiles(contenders):
    """The time in operations, and the shares of those that take most."""
    for contender in contenders:
        for (mode, batch), seconds in contender.profiles.items():
            total = sum(seconds.values())
            most = list(seconds.items())[:OPERATIONS]
            shares = [f"{name} {time / total:.0%}" for name, time in most]
            print(
                f"{contender}, {mode} {batch}: "
                f"operations {total * 1e3:.2f} ms, " + ", ".join(shares)
            )


def rows(contenders, name, precision, options):
    """The lines of the CSV file: one for each figure, in seconds or bytes."""
    for contender in contenders:
        report = contender.report
        versions = report.get("versions", {}).items()
        line = {
            "network": name,
            "variant": contender.variant,
            "precision": precision,
            "implementation": contender.implementation,
            "ours": contender.ours,
            "versions": " ".join(f"{k}=={v}" for k, v in versions),
            "machine": machine(contenders),
        }
        for state in {"absent", "failed"} & report.keys():
            yield line | {"measure": state, "note": report[state]}
        for task, samples in contender.samples.items():
            lower, upper = contender.quartiles(task)
            yield line | {
                "measure": task[0],
                "batch": task[1],
                "value": contender.median(task),
                "lower": lower,
                "upper": upper,
                "rounds": len(samples),
            }
        for (mode, size), seconds in contender.profiles.items():
            for operation, time in seconds.items():
                yield line | {
                    "measure": f"operation of {mode}",
                    "batch": size,
                    "value": time,
                    "note": operation,
                }
        for figure in (*FIGURES, "flops", "peak"):
            if report.get(figure) is not None:
                yield line | {"measure": figure, "value": report[figure]}


def machine(contenders=()):
    """The processor, its cores, and the accelerator where there is one."""
    devices = {c.report.get("device") for c in contenders} - {None}
    cores = f"{hardware.processor()}, {os.cpu_count()} cores"
    return ", ".join([cores, *sorted(devices)])


def print_header(contenders, title):
    versions = {}
    for contender in contenders:
        versions |= contender.report.get("versions", {})
    print(f"\n{title}\n{machine(contenders)}")
    print(
        f"Python {platform.python_version()}, "
        + ", ".join(f"{k} {v}" for k, v in sorted(versions.items()))
    )


def parse(arguments):
    summary, _, rest = __doc__.partition("\n")
    parser = command_line.parser(summary, epilog=rest)
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        default=["wrn-16-4"],
        help="several take hours on a CPU (default: wrn-16-4)",
    )
    parser.add_argument("--backends", nargs="*", choices=OURS, default=[*OURS])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[*PEERS])
    parser.add_argument(
        "--precisions", nargs="+", choices=("float32", "bfloat16")
    )
    parser.add_argument(
        "--batch", type=command_line.positive, help="images a step"
    )
    parser.add_argument(
        "--rounds", type=command_line.positive, help="samples of each figure"
    )
    parser.add_argument(
        "--seconds", type=duration, help="least duration of a sample"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a trial of the benchmark itself: shallow networks, few images",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="also the operations on which our own backends spend the time "
        "of a step, on a CPU, and with JAX on a GPU",
    )
    parser.add_argument(
        "--csv", type=pathlib.Path, help="file to write all figures to"
    )
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else DEFAULTS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    try:
        command_line.check_file("--csv", options.csv)
    except ValueError as error:
        parser.error(str(error))
    return options


def duration(text):
    """An argument's seconds, more than none."""
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"should be above 0, not {text}")
    return float(text)


def main(arguments=None):
    options = parse(arguments)
    lines, failed = [], False
    for name in options.networks:
        for precision in options.precisions:
            contenders = line_up(name, options)
            whole = measure(contenders, precision, options)
            title = f"{name}, {precision}" + ", shallow" * options.quick
            print_header(contenders, title)
            print_table(contenders, options.batch)
            print_ratios(contenders, options.batch)
            print_peak(contenders, options.batch)
            print_profiles(contenders)
            lines += rows(contenders, name, precision, options)
            if options.csv:
                with open(options.csv, "w", newline="") as file:
                    writer = csv.DictWriter(file, CSV_FIELDS)
                    writer.writeheader()
                    writer.writerows(lines)
            if not whole:
                return 128 + signal.SIGINT
            failed |= any(c.ours and "failed" in c.report for c in contenders)
    return int(failed)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    command_line.run(main)
