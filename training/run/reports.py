"""Writes the log of a run as CSV, TensorBoard events and a chart."""

import csv
import importlib.util
import os
import time

from keras_resfam._files import replacing
from training.run import run_folder
from training.run.checkpoints import CheckpointError


def write(folder, rows):
    """Writes `log.csv`, TensorBoard events and `curves.png` of a run.

    Args:
        folder: Path. The run's folder.
        rows: list of dicts, one per evaluation. The last one is new.
    """
    write_csv(folder / run_folder.LOG, rows)
    if importlib.util.find_spec("tensorboard"):
        write_events(folder / run_folder.EVENTS, rows[-1])
    if importlib.util.find_spec("matplotlib"):
        draw_curves(folder / run_folder.CURVES, rows)


def read(folder, fields=("epoch", "val_accuracy")):
    """Returns the rows of a run's `log.csv`.

    Args:
        folder: Path.
        fields: Tuple of strings. Columns that it has to have.

    Raises:
        CheckpointError: If it is not as train.py wrote it.
    """
    path = folder / run_folder.LOG
    try:
        with open(path, newline="") as file:
            rows = [
                {name: float(value) for name, value in row.items()}
                for row in csv.DictReader(file)
            ]
        [rows[-1][field] for field in fields]
    except (ValueError, TypeError, LookupError, csv.Error) as error:
        raise CheckpointError(
            f"{path} should be as train.py wrote it: a line of names, among "
            f"them {', '.join(fields)}, and lines of numbers. "
            f"Received: {error!r}"
        ) from error
    return rows


def write_csv(path, rows):
    """Writes rows to a file atomically."""
    with (
        replacing(path) as partial,
        open(partial, "w", newline="") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_events(folder, row):
    """Adds a row to the TensorBoard events in a folder.

    All rows are in one file. TensorBoard's own writer would create a file and a
    thread for each.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    values = [
        Summary.Value(tag=name, simple_value=value)
        for name, value in row.items()
        if name != "epoch"
    ]
    event = Event(
        wall_time=time.time(),
        step=row["epoch"],
        summary=Summary(value=values),
    )
    folder.mkdir(exist_ok=True)
    path = folder / "events.out.tfevents.training"
    path.touch()
    whole = path.stat().st_size
    try:
        with open(path, "ab") as file:
            RecordWriter(file).write(event.SerializeToString())
    except OSError:
        os.truncate(path, whole)  # a reader stops at a partial record
        raise


def draw_curves(path, rows):
    """Draws the learning curves."""
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(9, 4), layout="constrained")
    error, loss = figure.subplots(1, 2)
    for prefix, label in (("", "training"), ("val_", "evaluation")):
        accuracy = [row[f"{prefix}accuracy"] for row in rows]
        error.plot(epochs, [100 * (1 - a) for a in accuracy], label=label)
        loss.plot(epochs, [row[f"{prefix}loss"] for row in rows], label=label)
    error.set(xlabel="epoch", ylabel="error (%)", yscale="log")
    loss.set(xlabel="epoch", ylabel="loss")
    error.legend()
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)
