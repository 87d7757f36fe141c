"""The processes of the benchmark, and this package in one of them.

A process answers requests over a connection, so that the measurements of
several implementations alternate: one works while the others wait.
"""

import collections
import functools
import importlib
import math
import os
import pathlib
import resource
import signal
import sys
import tempfile
import time

import numpy as np

from training.benchmarks import peak
from training.benchmarks.profiling import profile
from training.startup import hardware
from training.startup.backend import quiet

SGD = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
LEARNING_RATE = 0.01


class Absent(Exception):
    """An implementation has no such network, or cannot run it here."""


def serve(connection, kind, options):
    """Answers requests about networks of `kind(*options)`.

    A request is the name of a network, and of a `Session`'s method with its
    arguments; or `None` to end.
    """
    # A GPU is shared by all processes: none may take the whole of it.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    os.environ["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = "false"
    hardware.keep_freed_memory()
    for number in (signal.SIGINT, signal.SIGTERM):  # the benchmark decides
        signal.signal(number, signal.SIG_IGN)
    sessions = collections.defaultdict(lambda: Session(kind(*options)))
    while (request := connection.recv()) is not None:
        network, method, *arguments = request
        try:
            answer = getattr(sessions[network], method)(*arguments)
        except Exception as error:  # becomes a line of the table
            answer = describe(error)
        connection.send(answer)


def describe(error):
    absent = isinstance(error, Absent | ModuleNotFoundError)
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return {"absent" if absent else "failed": reason[0]}


class Session:
    """An implementation of one network, prepared and measured."""

    def __init__(self, implementation):
        self.implementation = implementation
        self.steps = {}

    def prepare(self, network, precision, batch):
        """Imports, builds and does one training step."""
        report = self.implementation.load()
        builder, arguments = network
        self.shape = image_shape(arguments)
        start = time.perf_counter()
        report |= self.implementation.build(builder, arguments, precision)
        report["build"] = time.perf_counter() - start
        if self.implementation.trains:
            start = time.perf_counter()
            self.implementation.first_step(*batch_of(batch, self.shape))
            report["first step"] = time.perf_counter() - start
        return report | {"memory": self.implementation.peak_memory()}

    def sample(self, mode, batch, least):
        """Returns the seconds per step, over at least `least` seconds."""
        if mode == "train" and not self.implementation.trains:
            return {}
        if (mode, batch) not in self.steps:
            self.run(mode, batch, 2)  # compiles
            seconds = self.run(mode, batch, 1)
            self.steps[mode, batch] = math.ceil(least / seconds)
        steps = self.steps[mode, batch]
        return {"seconds": self.run(mode, batch, steps) / steps}

    def run(self, mode, batch, steps):
        x, y = batch_of(batch, self.shape)
        if mode == "train":
            return self.implementation.train(x, y, steps)
        start = time.perf_counter()
        for _ in range(steps):
            self.implementation.infer(x)
        return time.perf_counter() - start

    def profile(self, mode, batch):
        """Returns the seconds that each operation takes in a step."""
        if mode == "train" and not self.implementation.trains:
            return {}
        on_gpu = self.implementation.device() is not None
        if on_gpu and self.implementation.backend != "jax":
            return {"profile": {}}  # read of a processor only
        x, y = batch_of(batch, self.shape)
        step = {
            "train": functools.partial(self.implementation.first_step, x, y),
            "infer": functools.partial(self.implementation.infer, x),
        }[mode]
        step()
        return {"profile": profile(self.implementation.backend, step, 5)}

    def to_inference(self):
        self.implementation.to_inference()
        return {}

    def matrix_peak(self, precision):
        return {"peak": self.implementation.matrix_peak(precision)}


class KerasResfam:
    """This package on one backend, trained by `fit`, inferring folded."""

    trains = True

    def __init__(self, backend, jit, compiled=False, onednn=False):
        self.backend, self.jit, self.compiled = backend, jit, compiled
        self.onednn = onednn

    def load(self):
        os.environ["KERAS_BACKEND"] = self.backend
        if self.onednn:  # even if it is not TensorFlow's default
            os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
        start = time.perf_counter()
        with quiet():
            import keras

        middle = time.perf_counter()
        import keras_resfam

        end = time.perf_counter()
        self.keras, self.package = keras, keras_resfam
        modules = "keras_resfam", "keras", self.backend
        return {
            "import": end - start,
            "package import": end - middle,
            "versions": versions(*modules),
            "device": self.device(),
        }

    def device(self):
        return hardware.accelerator(self.backend)

    def build(self, builder, arguments, precision):
        keras = self.keras
        if precision == "bfloat16":
            keras.config.set_dtype_policy("mixed_bfloat16")
        self.model = getattr(self.package, builder)(
            **{**arguments, "input_shape": image_shape(arguments)},
            classifier_activation=None,
            include_preprocessing=False,
        )
        self.runner = self.compile(
            self.model,
            optimizer=keras.optimizers.SGD(LEARNING_RATE, **SGD),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        return {"flops": 2 * self.package.count_multiply_adds(self.model)}

    def compile(self, model, **options):
        """Returns what runs the model, compiled."""
        if self.compiled:
            model = self.package.compiled(model)
        model.compile(jit_compile=self.jit, **options)
        return model

    def first_step(self, x, y):
        self.runner.train_on_batch(x, y)

    def train(self, x, y, steps):
        clock = self.clock()
        self.runner.fit(
            np.concatenate([x] * (steps + 1)),
            np.concatenate([y] * (steps + 1)),
            batch_size=len(x),
            shuffle=False,
            verbose=0,
            callbacks=[clock],
        )
        return clock.seconds

    def clock(self):
        ops = self.keras.ops

        class Clock(self.keras.callbacks.Callback):
            """Runs from the second step on: `fit` starts slowly."""

            def on_train_batch_begin(self, batch, logs=None):
                if batch == 1:
                    # Waits: a GPU does its work in order, a CPU at once.
                    ops.convert_to_numpy(ops.ones(()) + 1)
                    self.start = time.perf_counter()

            def on_epoch_end(self, epoch, logs=None):
                self.seconds = time.perf_counter() - self.start

        return Clock()

    def to_inference(self):
        self.model = self.package.fold_batch_norm(self.model)
        if self.compiled:
            self.predict = self.package.predictor(self.model)
        else:
            self.predict = self.compile(self.model).predict_on_batch

    def infer(self, x):
        return self.predict(x)

    def peak_memory(self):
        if self.device() is None:
            return peak_resident()
        if self.backend == "torch":
            import torch

            return torch.cuda.max_memory_allocated()
        if self.backend == "jax":
            import jax

            return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["peak"]

    def matrix_peak(self, precision):
        size = 2048 if self.device() is None else 8192
        return peak.measure(self.keras, precision, size)


class Exported(KerasResfam):
    """The folded network in ONNX Runtime, to which Keras exports it."""

    trains = False

    def __init__(self):
        super().__init__("torch", jit=False)
        self.session = None

    def load(self):
        report = super().load()
        modules = versions("onnxruntime", "onnxscript")
        return report | {"versions": report["versions"] | modules}

    def build(self, builder, arguments, precision):
        if precision != "float32":
            raise Absent("float32 only")
        return super().build(builder, arguments, precision)

    def to_inference(self):
        import onnxruntime

        super().to_inference()
        one, _ = batch_of(1, self.model.input_shape[1:])
        self.infer(one)  # Keras exports what was called
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.onnx"
            self.model.export(path, format="onnx", verbose=False)
            self.session = onnxruntime.InferenceSession(
                path, providers=onnxruntime.get_available_providers()
            )

    def infer(self, x):
        if self.session is None:
            return super().infer(x)
        (images,) = self.session.get_inputs()
        return self.session.run(None, {images.name: x})[0]


def versions(*modules):
    """Returns versions of modules, whose packages may have other names."""
    return {name: importlib.import_module(name).__version__ for name in modules}


def peak_resident():
    """Returns the largest memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def image_shape(arguments):
    """Height, width and channels of the images of a network."""
    return arguments.get("input_shape", (32, 32, 3))


def batch_of(size, shape):
    """Returns random images of a shape, and labels."""
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(size, *shape)).astype("float32"),
        rng.integers(0, 10, size),
    )
