"""Where the time of a step goes, by the backend's own profiler.

An operation's time is its own, without that of the operations it calls. Where
several run side by side, all of them count. XLA names operations by what it
has fused; on a GPU, operations are its kernels.
"""

import collections
import glob
import itertools
import os
import re
import tempfile


def profile(backend, step, steps):
    """Measures the operations of `steps` steps.

    On a processor, and with JAX on a GPU.

    Args:
        backend: str. The Keras backend that `step` runs on.
        step: callable without arguments, compiled already.
        steps: int.

    Returns:
        A dict: the name of each operation -> its seconds in one step, the
        longest first.
    """

    def run():
        for _ in range(steps):
            step()

    profiler, unit = PROFILERS[backend]
    times = profiler(run)
    return {name: time * unit / steps for name, time in times.most_common()}


def torch_operations(run):
    import torch

    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU]
    ) as profiler:
        run()
    return collections.Counter(
        {
            event.key: event.self_cpu_time_total
            for event in profiler.key_averages()
        }
    )


def tensorflow_operations(run):
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run()
        space = XSpace()
        with open(trace(folder), "rb") as file:
            space.ParseFromString(file.read())
    threads = [
        [
            (
                plane.event_metadata[event.metadata_id].name,
                event.offset_ps,
                event.duration_ps,
            )
            for event in line.events
        ]
        for plane in space.planes
        for line in plane.lines
    ]
    # A node's name, a colon, and the operation.
    return own_times(threads, named(r"[^:$]+:(\w+)"))


def jax_operations(run):
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        data = jax.profiler.ProfileData.from_file(trace(folder))
    return jax_times(list(data.planes))


def jax_times(planes):
    """Adds up the operations of a trace by JAX.

    Args:
        planes: list of planes, of `jax.profiler.ProfileData`.
    """

    def threads(plane_start, line_start):
        return [
            [
                (event.name, event.start_ns, event.duration_ns)
                for event in line.events
            ]
            for plane in planes
            if plane.name.startswith(plane_start)
            for line in plane.lines
            if line.name.startswith(line_start)
        ]

    streams = threads("/device:GPU", "Stream")
    if streams:  # one kernel may begin before another's end, but calls none
        times = collections.Counter()
        for name, _, duration in itertools.chain.from_iterable(streams):
            times[kernel(name)] += duration
        return times
    # The other threads are Python's. The fused operations, and a number; a
    # colon is in what runs them.
    return own_times(threads("", "tf_XLA"), named(r"([^:]+?)(?:\.\d+)*"))


def kernel(name):
    """Returns what a GPU's kernel does, without its number and its sizes."""
    convolution = re.search("fprop|dgrad|wgrad", name)  # as cuDNN has them
    if convolution:
        return f"convolution {convolution.group()}"
    return re.sub(r"(?:[._]\d+)+$", "", name)


def named(pattern):
    """Returns a function from a name to the group of its pattern, or None."""
    pattern = re.compile(pattern)

    def operation(name):
        match = pattern.fullmatch(name)
        return match.group(1) if match else None

    return operation


# And the unit of their times, in seconds.
PROFILERS = {
    "tensorflow": (tensorflow_operations, 1e-12),
    "jax": (jax_operations, 1e-9),
    "torch": (torch_operations, 1e-6),
}


def trace(folder):
    """Returns the one trace that a profiler has left in a folder."""
    pattern = os.path.join(folder, "**", "*.xplane.pb")
    (path,) = glob.glob(pattern, recursive=True)
    return path


def own_times(threads, operation):
    """Adds up the time of each operation without what it calls.

    Args:
        threads: lists of events: name, start and duration.
        operation: callable from an event's name to its operation, or None
            for what does not count.
    """
    times = collections.Counter()
    for events in threads:
        callers = []
        # If two start together, the longer one calls the other.
        for name, start, duration in sorted(
            events, key=lambda event: (event[1], -event[2])
        ):
            while callers and callers[-1][1] <= start:
                callers.pop()
            if callers:
                times[callers[-1][0]] -= duration
            key = operation(name)
            times[key] += duration
            callers.append((key, start + duration))
    del times[None]
    return times
