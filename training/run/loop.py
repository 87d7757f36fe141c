"""The training loop: calls `fit` for one epoch at a time, logs and saves."""

import contextlib
import functools
import math
import pathlib
import signal
import time

import keras
import numpy as np
from keras import ops

from keras_resfam._files import replacing
from keras_resfam.analysis import error_moments
from keras_resfam.pretrained.files import WEIGHTS, note_digest
from training.run import checkpoints, reports, run_folder
from training.run.trainer import EvaluateAverages


class Interrupted(Exception):
    """Raised when a signal has stopped the run and its state is saved."""

    def __init__(self, message, signal):
        super().__init__(message)
        self.signal = signal


class NonFiniteLoss(Exception):
    """Raised when the loss or a weight is NaN or infinite."""


class Run:
    """A training run in its folder.

    Args:
        folder: Path. The run's folder.
        trainer: `Trainer` that is compiled.
        epochs: `batches.Epochs`, or an object with its `steps` and `epoch()`.
        evaluation: The data for `Trainer.evaluate`.
        devices: `distribution.Devices`.
        choose: bool. Whether to keep the weights of the best epoch, if the
            evaluation set is not the test set. Defaults to `False`.
        save_every: int. Steps between checkpoints within an epoch. Defaults to
            `500`.
        evaluate_every: int. Epochs between evaluations, with which come a row
            of the log and a checkpoint. The last epoch is always evaluated.
            Defaults to `1`.
        description: dict. The contents of its `recipe.json`. Defaults to
            `None`.
    """

    def __init__(
        self,
        folder,
        trainer,
        epochs,
        evaluation,
        devices,
        choose=False,
        save_every=500,
        evaluate_every=1,
        description=None,
    ):
        self.folder = pathlib.Path(folder)
        self.trainer = trainer
        self.epochs = epochs
        self.evaluation = evaluation
        self.choose = choose
        self.save_every = save_every
        self.evaluate_every = evaluate_every
        self.description = description
        self.devices = devices
        self.epoch, self.batch = 0, 0
        self.rows = []
        self.seconds = 0.0
        self.meters = None
        self.signal = None

    @property
    def step(self):
        return self.epoch * self.epochs.steps + self.batch

    def evaluates(self, epoch):
        """Returns whether an epoch, counted from 0, ends in an evaluation."""
        recipe = self.trainer.recipe
        done = epoch + 1
        always = done == recipe.epochs or done in recipe.restarts
        return always or done % self.evaluate_every == 0

    def train(self, verbose=1):
        """Trains to the recipe's last epoch, from where the run is.

        Args:
            verbose: `0` prints nothing, `1` a progress bar, and `2` a line for
                each epoch. Defaults to `1`.

        Returns:
            The rows of the log, a list with one dict per evaluation.

        Raises:
            Interrupted, NonFiniteLoss, checkpoints.CheckpointError.
        """
        total = self.trainer.recipe.epochs
        if run_folder.is_complete(self.folder):
            self.rows = reports.read(self.folder)
            return self.rows
        callbacks = keras.callbacks.CallbackList(
            [EvaluateAverages(), Progress(self)],
            add_history=True,
            add_progbar=verbose > 0,
            model=self.trainer,
            verbose=verbose,
            epochs=total,
            steps=self.epochs.steps,
        )
        with self._recording_signals(), self.devices.scope():
            while self.epoch < total:
                batches = self.epochs.epoch(self.epoch, skip=self.batch)
                evaluates = self.evaluates(self.epoch)
                self.trainer.ready_for(self.epoch)
                self.trainer.fit(
                    self.devices.spread(
                        batches, self.trainer.recipe.batch_size
                    ),
                    validation_data=self.evaluation if evaluates else None,
                    # Without it, TensorFlow's workers notice the end of the
                    # data only by a step without any.
                    steps_per_epoch=self.epochs.steps - self.batch,
                    initial_epoch=self.epoch,
                    epochs=self.epoch + 1,
                    shuffle=False,
                    callbacks=callbacks,
                    verbose=verbose,
                )
        self.save_result(WEIGHTS)
        return self.rows

    def moment_ratio(self):
        """Returns the column `moment_ratio` of the log, if it has one."""
        if not self.trainer.recipe.log_moments:
            return {}
        moments = error_moments(self.trainer.network, *self.first_batch)
        *_, top = moments.values()
        bottom, *_ = moments.values()
        return {"moment_ratio": float(np.divide(top, bottom))}

    @functools.cached_property
    def first_batch(self):
        """The images and labels of a batch to train on, always the same."""
        (images, _), labels = next(iter(self.epochs.epoch(0)))
        return images, labels

    def save_result(self, name):
        """Writes the averaged weights, or the weights if none are averaged.

        All processes have to call it: JAX needs them to change a variable.
        """
        self.trainer.swap_averages()
        if self.devices.first:
            with checkpoints.writing(name, self.folder):
                save_weights(self.trainer.network, self.folder / name)
        self.trainer.swap_averages()

    def variables(self):
        """Returns all variables that training changes, in a fixed order."""
        trainer = self.trainer
        return [
            *trainer.trainable_variables,
            *trainer.non_trainable_variables,
            *trainer.optimizer.variables,
        ]

    def state(self):
        """Returns the values of all variables that training changes.

        Raises:
            NonFiniteLoss: If a weight is NaN or infinite after the last step,
                whose loss may be finite.
        """
        if keras.backend.backend() == "jax":
            self.trainer.jax_state_sync()
        arrays = [ops.convert_to_numpy(v) for v in self.variables()]
        if not all(np.isfinite(array).all() for array in arrays):
            raise self.non_finite("The weights are not finite after")
        return arrays

    def save(self, arrays):
        """Writes a checkpoint of the state after the last complete step."""
        meters = [float(ops.convert_to_numpy(v)) for v in self.trainer.meters()]
        if self.devices.first:
            state = {
                "epoch": self.epoch,
                "batch": self.batch,
                "seconds": self.seconds,
                "meters": meters,
                "rows": self.rows,
            }
            checkpoints.save(
                self.folder / run_folder.CHECKPOINTS, self.step, arrays, state
            )

    def restore(self):
        """Restores the newest intact checkpoint, if there is one.

        A complete run is not changed.
        """
        if run_folder.is_complete(self.folder):
            return
        folder = self.folder / run_folder.CHECKPOINTS
        if self.devices.first:
            checkpoints.clean(folder)
            for path in self.folder.glob("partial-[0-9]*-*"):
                path.unlink()  # of a process that was killed
        found = checkpoints.load(folder, mend=self.devices.first)
        if found is not None:
            self._set_state(*found)
            place = f"epoch {self.epoch + 1}, batch {self.batch}"
            print(f"Continuing from {place}.")
        alone = self.devices.mean(self.step) != self.step
        if self.devices.mean(int(alone)):
            raise checkpoints.CheckpointError(
                f"The processes found different checkpoints in {folder}, which "
                "should be the same folder for all of them. "
                f"Received: step {self.step} in this one"
            )

    def _set_state(self, arrays, state):
        variables = self.variables()
        self._check_state(state)
        kinds = [(tuple(v.shape), np.dtype(v.dtype).kind) for v in variables]
        if kinds != [(array.shape, array.dtype.kind) for array in arrays]:
            raise checkpoints.CheckpointError(
                f"The checkpoint in {self.folder} is of another network or "
                "optimizer. Give the command that began the run, or another "
                "`--run-dir`."
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.rows, self.seconds = state["rows"], state["seconds"]
        self.meters = state["meters"]

    def _check_state(self, state):
        """Checks that a checkpoint has the state of a run like this one."""

        def number(value):
            return isinstance(value, int | float) and value is not True

        last = self.trainer.recipe.epochs, self.epochs.steps - 1
        try:
            sound = (
                all(
                    type(state[key]) is int and 0 <= state[key] <= most
                    for key, most in zip(("epoch", "batch"), last, strict=True)
                )
                and all(map(number, [state["seconds"], *state["meters"]]))
                and len(state["meters"]) == len(self.trainer.meters())
                and all(
                    {"epoch", "val_accuracy"} <= row.keys()
                    and all(map(number, row.values()))
                    for row in state["rows"]
                )
            )
        except (LookupError, TypeError, AttributeError):
            sound = False
        if not sound:
            raise checkpoints.CheckpointError(
                f"The newest checkpoint in {self.folder} was not written by "
                "train.py for this run. Remove it to use the one before it."
            )

    def non_finite(self, what):
        """Returns the error for something that is not finite after a step."""
        epoch = (self.step - 1) // self.epochs.steps + 1
        return NonFiniteLoss(
            f"{what} step {self.step} (epoch {epoch}). A lower learning rate "
            "or `--set clip_norm=1.0` may help, in another `--run-dir`. This "
            "one is kept as it was before."
        )

    def asked_to_stop(self):
        """Returns whether any of the processes has received a signal.

        All processes call it after each step, so that they stop together.
        """
        if self.devices.mean(int(self.signal is not None)):
            self.signal = self.signal or signal.SIGTERM
        return self.signal is not None

    @contextlib.contextmanager
    def _recording_signals(self):
        """Context manager that records SIGTERM and SIGINT.

        The run stops at the end of a batch.
        """

        def note(number, frame):
            self.signal = number

        kinds = signal.SIGTERM, signal.SIGINT
        before = [signal.signal(kind, note) for kind in kinds]
        try:
            yield
        finally:
            for kind, handler in zip(kinds, before, strict=True):
                signal.signal(kind, handler)


class Progress(keras.callbacks.Callback):
    """Callback that counts steps, checks the loss, logs and saves."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_epoch_begin(self, epoch, logs=None):
        run = self.run
        self.began = time.perf_counter() - run.seconds
        if run.batch:
            for meter, value in zip(
                run.trainer.meters(), run.meters, strict=True
            ):
                meter.assign(value)

    def on_train_batch_end(self, batch, logs=None):
        run = self.run
        before = run.batch
        together = run.trainer.steps_per_execution
        run.batch = min(before + together, run.epochs.steps)
        run.seconds = time.perf_counter() - self.began
        if not math.isfinite(logs["loss"]):
            raise run.non_finite(f"The loss is {logs['loss']} after")
        if run.batch == run.epochs.steps:
            return
        stop = run.asked_to_stop()
        if stop or run.batch // run.save_every > before // run.save_every:
            run.save(run.state())
        if stop:
            self._stop()

    def on_epoch_end(self, epoch, logs=None):
        run = self.run
        evaluates = run.evaluates(epoch)
        run.seconds = time.perf_counter() - self.began
        if evaluates:
            arrays = run.state()  # checked before anything is written
            if not math.isfinite(logs["val_loss"]):
                raise run.non_finite(
                    f"The evaluation loss is {logs['val_loss']} after"
                )
            self._log(epoch, logs)
            run.seconds = 0.0
        run.epoch, run.batch = epoch + 1, 0
        stop = run.asked_to_stop()
        if evaluates or stop:
            # It is written last. If the process is killed before, all of this
            # is repeated.
            run.save(arrays if evaluates else run.state())
        if stop:
            self._stop()

    def _log(self, epoch, logs):
        """Adds a row to the log, and writes the weights that are kept."""
        run = self.run
        rate = run.trainer.learning_rate_at(run.step - 1)
        run.rows.append(
            {
                "epoch": epoch + 1,
                "learning_rate": rate,
                **logs,
                **run.moment_ratio(),
                "seconds": round(run.seconds, 3),
            }
        )
        if run.devices.first:
            with checkpoints.writing("the log", run.folder):
                reports.write(run.folder, run.rows)
        scores = [row["val_accuracy"] for row in run.rows]
        if run.choose and scores[-1] == max(scores):
            run.save_result(run_folder.BEST_WEIGHTS)
        if epoch + 1 in run.trainer.recipe.restarts:
            run.save_result(run_folder.epoch_weights(epoch + 1))

    def _stop(self):
        run = self.run
        name = signal.Signals(run.signal).name
        raise Interrupted(
            f"{name}: stopped and saved at epoch {run.epoch + 1}, batch "
            f"{run.batch}; the same command continues from there.",
            run.signal,
        )


def save_weights(network, path):
    """Writes a network's weights atomically, and their SHA-256 beside them.

    HDF5 crashes if the disk is full, so the space is reserved first.
    """
    room = 2**20 + 2 * sum(w.nbytes for w in network.get_weights())
    with replacing(path) as partial:
        partial.write_bytes(bytes(room))
        network.save_weights(partial)
        note_digest(path, partial.read_bytes())
