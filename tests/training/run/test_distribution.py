"""Several devices and several processes learn as one device does."""

import json
import math
import re
import signal
import socket

import keras
import numpy as np
import pytest

import runs
from tiny_tfds import write_images
from training import recipes, train
from training.run import distribution, reports, session

BACKEND = keras.backend.backend()
distributes = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras has no distributed fit for torch"
)


# At the recipe's rate rounding grows tenfold in a few steps.
OPTIONS = (
    *runs.TINY,
    "--set=learning_rate=0.01",
    "--set=drop_blocks={'active': 2}",
    "--batch-size=128",
)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def processes(folder, count=2, options=OPTIONS):
    """Starts the processes of one run, that talk over loopback."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    for index in range(count):
        cluster = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        environment = {"TF_CONFIG": json.dumps(cluster)}
        if BACKEND == "jax":
            environment = {
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": addresses[0],
                "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count),
                "KERAS_DISTRIBUTION_PROCESS_ID": str(index),
            }
        yield runs.start(folder, *options, "--distribute", **environment)


@distributes
def test_loss_curve_is_that_of_one_device(tmp_path):
    one, devices, apart = (tmp_path / name for name in "abc")
    started = [runs.start(devices, *OPTIONS, "--distribute=2")]
    first, second = processes(apart)
    runs.wait_for_step(second, apart, 5)
    second.send_signal(signal.SIGTERM)  # and all stop at the same step
    stopped = [
        runs.finish(process, code=128 + signal.SIGTERM)
        for process in (first, second)
    ]
    places = {re.search("stopped and saved at .*", text)[0] for text in stopped}
    assert len(places) == 1, places
    started += processes(apart)
    train.main([*OPTIONS, f"--run-dir={one}"])
    for process in started:
        runs.finish(process)
    expected = reports.read(one)
    assert len(expected) == 2
    for other in (devices, apart):
        for row, reference in zip(reports.read(other), expected, strict=True):
            assert row["loss"] == pytest.approx(reference["loss"], abs=1e-4)
            assert row["val_loss"] == pytest.approx(
                reference["val_loss"], abs=1e-4
            )


@distributes
def test_streamed_images_are_shared_as_well(tmp_path):
    """Two devices learn as one; two processes shuffle each its own half."""
    images = np.random.default_rng(0).integers(0, 256, (32, 12, 10, 3), "uint8")
    write_images(tmp_path, "tiny", images, [0, 1] * 16, classes=2, sized=False)
    options = (
        *("--recipe=fine_tune", f"--data-dir={tmp_path}", "--quiet"),
        *("--epochs=2", "--batch-size=8", "--set=dataset=tiny"),
        *("--set=builder=ResNet", "--set=arguments={'depth': 8}"),
        *("--set=weights=None", "--set=image_size=8"),
    )
    one, devices, apart = (tmp_path / name for name in "abc")
    started = [
        runs.start(devices, *options, "--distribute=2"),
        *processes(apart, options=options),
    ]
    train.main([*options, f"--run-dir={one}"])
    for process in started:
        runs.finish(process)
    expected = reports.read(one)
    assert len(expected) == 2
    for row, reference in zip(reports.read(devices), expected, strict=True):
        assert row["loss"] == pytest.approx(reference["loss"], abs=1e-4)
    apart = reports.read(apart)
    assert [row["epoch"] for row in apart] == [1, 2]
    assert all(math.isfinite(row["val_loss"]) for row in apart)


def test_batch_must_divide_by_the_devices():
    recipe = recipes.find("digits").replace(batch_size=33)
    with pytest.raises(ValueError, match="the 2 .* Received: batch_size=33"):
        session.check_devices(recipe, distribution.Devices(count=2))


@pytest.mark.skipif(BACKEND != "torch", reason="the others distribute")
def test_torch_says_that_it_does_not():
    with pytest.raises(ValueError, match="Received: backend=torch"):
        distribution.start()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="has TF_CONFIG")
def test_a_chief_is_the_first_of_the_workers():
    import tensorflow as tf

    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}

    def place(*task):
        return distribution._place(
            tf.distribute.cluster_resolver.SimpleClusterResolver(
                tf.train.ClusterSpec(cluster), "", *task
            )
        )

    assert place("chief", 0) == (3, 0)
    assert place("worker", 0) == (3, 1)
    assert place("worker", 1) == (3, 2)
    with pytest.raises(ValueError, match="Received: evaluator 0 of"):
        place("evaluator", 0)


def test_shards_of_devices():
    devices = distribution.Devices(count=4, processes=2, index=1)
    assert devices.shard == (1, 2)
    assert not devices.first


def test_batches_for_evaluation_are_shared_by_however_many():
    for count, size in ((1, 100), (3, 102), (128, 128), (1024, 1024)):
        assert distribution.Devices(count=count).multiple(100) == size
