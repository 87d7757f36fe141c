"""Samples of all contenders, taken in turns."""

import random
import sys

from tqdm import tqdm


def measure_in_turns(contenders, precision, options):
    """Measures a network by every implementation, in turn.

    Returns:
        Whether it came to its end without an interruption.
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
        # After each task, since other work of the machine slows this too.
        for contender in contenders:
            if contender.ours and not contender.base and not options.quick:
                contender.measure_peak(precision)


def turns(contenders, rounds):
    """Yields each contender once per round, in random order.

    A process that follows another finds its threads and caches still busy.
    """
    draw = random.Random(0)
    for _ in range(rounds):
        yield from draw.sample(contenders, len(contenders))


def tasks(batch):
    """Returns the pairs `(mode, batch)` to measure, each once."""
    every = [("train", batch), ("infer", batch), ("infer", 1)]
    return list(dict.fromkeys(every))
