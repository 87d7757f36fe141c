"""Where the time of a step goes, by the backend's own profiler.

An operation's time is its own, without that of the operations it calls. Where
several run side by side, all of them count. XLA names operations by what it
has fused.
"""

import collections
import glob
import os
import re
import tempfile


def profile(backend, step, steps):
    """Measures the operations of `steps` steps on a processor.

    Args:
        backend: String. The Keras backend that `step` runs on.
        step: Callable without arguments, compiled already.
        steps: Integer.

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
    return own_times(threads, re.compile(r"[^:$]+:(\w+)"))


def jax_operations(run):
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        data = jax.profiler.ProfileData.from_file(trace(folder))
    threads = [
        [
            (event.name, event.start_ns, event.duration_ns)
            for event in line.events
        ]
        for plane in data.planes
        for line in plane.lines
        if line.name.startswith("tf_XLA")  # the others are Python's
    ]
    # The fused operations, and a number; a colon is in what runs them.
    return own_times(threads, re.compile(r"([^:]+?)(?:\.\d+)*"))


# And the unit of their times, in seconds.
PROFILERS = {
    "tensorflow": (tensorflow_operations, 1e-12),
    "jax": (jax_operations, 1e-9),
    "torch": (torch_operations, 1e-6),
}


def trace(folder):
    """The one trace that a profiler has left in a folder."""
    pattern = os.path.join(folder, "**", "*.xplane.pb")
    (path,) = glob.glob(pattern, recursive=True)
    return path


def own_times(threads, operation):
    """Adds up the time of each operation without what it calls.

    Args:
        threads: Lists of events: name, start and duration.
        operation: Pattern of the names that count, whose group is the
            operation.
    """
    times = collections.Counter()
    for events in threads:
        callers = []
        # Of two that start together the longer calls the other.
        for name, start, duration in sorted(
            events, key=lambda event: (event[1], -event[2])
        ):
            while callers and callers[-1][1] <= start:
                callers.pop()
            if callers:
                times[callers[-1][0]] -= duration
            match = operation.fullmatch(name)
            key = match.group(1) if match else None
            times[key] += duration
            callers.append((key, start + duration))
    del times[None]
    return times
