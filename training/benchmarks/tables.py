"""What the benchmark has measured, as text and as lines of a CSV file."""

import os
import platform

from training.benchmarks.sampling import tasks
from training.startup import hardware

# The other figures of a report: the unit in the table, and its size.
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


def print_header(contenders, title):
    versions = {}
    for contender in contenders:
        versions |= contender.report.get("versions", {})
    print(f"\n{title}\n{machine(contenders)}")
    print(
        f"Python {platform.python_version()}, "
        + ", ".join(f"{k} {v}" for k, v in sorted(versions.items()))
    )


def print_table(contenders, batch):
    heads = [f"{mode} {size}" for mode, size in tasks(batch)]
    heads += [f"{figure} {unit}" for figure, (unit, _) in FIGURES.items()]
    print(f"{'':34}" + "".join(f"{head:>18}" for head in heads))
    for contender in contenders:
        if contender.runs():
            cells = [speed_cell(contender, task) for task in tasks(batch)]
            cells += [cost_cell(contender, figure) for figure in FIGURES]
            line = "".join(f"{cell:>18}" for cell in cells)
        else:
            (state,) = {"absent", "failed"} & contender.report.keys()
            line = f"    {state}: {contender.report[state]}"
        print(f"{contender!s:34}{line}")


def speed_cell(contender, task):
    """Images a second, or milliseconds for one image, and the spread."""
    if task not in contender.samples:
        return "-"
    median = contender.median(task)
    lower, upper = contender.quartiles(task)
    size = task[1]
    figure = f"{size / median:.0f}/s" if size > 1 else f"{median * 1e3:.2f} ms"
    return f"{figure} {(upper - lower) / median:4.0%}"


def cost_cell(contender, figure):
    _, scale = FIGURES[figure]
    value = contender.report.get(figure)
    return "-" if value is None else f"{value / scale:.2f}"


def print_ratios(contenders, batch):
    """Prints how many times as fast the best backend is as each other."""
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
    """Prints a network's time beside that of its variants, on one backend."""
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
    """Prints each backend's share of the speed of large matrix products.

    The peak is that of the fastest library of all backends. Only a network
    with Winograd's algorithm, which multiplies less often than the direct
    convolutions that are counted, can exceed it.
    """
    peaks = [
        (rate, f"{contender.implementation}'s {way}")
        for contender in contenders
        for way, rate in contender.report.get("peak", {}).items()
    ]
    if not peaks:
        return
    peak, fastest = max(peaks)
    print(f"peak: {peak / 1e9:,.0f} GFLOP/s, {fastest}")
    # The backward pass multiplies twice as much as the forward pass.
    for mode, passes in (("train", 3), ("infer", 1)):
        for contender in contenders:
            if contender.ours and (mode, batch) in contender.samples:
                flops = passes * contender.report["flops"] * batch
                reached = flops / contender.median((mode, batch))
                print(
                    f"{contender}, {mode}: {reached / 1e9:,.0f} GFLOP/s, "
                    f"{reached / peak:.0%} of the peak"
                )


def print_profiles(contenders):
    """Prints the time in operations, and the largest shares of it."""
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
    """Yields the rows of the CSV file, one per figure, in seconds or bytes."""
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
        for way, rate in report.get("peak", {}).items():
            yield line | {"measure": "peak", "value": rate, "note": way}
        for figure in (*FIGURES, "flops"):
            if report.get(figure) is not None:
                yield line | {"measure": figure, "value": report[figure]}


def machine(contenders=()):
    """Returns the processor, its cores, and the accelerator if any."""
    devices = {c.report.get("device") for c in contenders} - {None}
    cores = f"{hardware.processor()}, {os.cpu_count()} cores"
    return ", ".join([cores, *sorted(devices)])
