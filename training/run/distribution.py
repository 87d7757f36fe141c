"""Training on several devices, by Keras and TensorFlow.

With JAX, `keras.distribution.DataParallel` uses all devices of all processes.
With TensorFlow, it is `tf.distribute.MirroredStrategy`, or
`MultiWorkerMirroredStrategy` if TF_CONFIG is set. With torch, Keras cannot
distribute `fit`.
"""

import contextlib
import dataclasses
import os

import keras

from training.images import batches


@dataclasses.dataclass
class Devices:
    """The devices of a run.

    Attributes:
        count: int. The number of devices of all processes.
        processes: int. The number of processes.
        index: int. The index of this process.
        strategy: The `tf.distribute.Strategy`, if there is one.
    """

    count: int = 1
    processes: int = 1
    index: int = 0
    strategy: object = None

    @property
    def shard(self):
        """This process's share of the data: `(index, count)`."""
        return self.index, self.processes

    @property
    def first(self):
        """Whether this is the process that writes the run's folder."""
        return self.index == 0

    def scope(self):
        """Returns the context in which to build the network."""
        if self.strategy is None:
            return contextlib.nullcontext()
        return self.strategy.scope()

    def multiple(self, size):
        """Returns the least multiple of the devices that is `size` or more."""
        return -(-size // self.count) * self.count

    def mean(self, number):
        """Returns the mean over all processes, which must all call this."""
        if self.processes == 1:
            return number
        if self.strategy is None:
            from jax.experimental import multihost_utils

            return float(multihost_utils.process_allgather(number).mean())
        import tensorflow as tf

        numbers = self.strategy.run(lambda: tf.constant(number, "float64"))
        total = self.strategy.reduce("SUM", numbers, axis=None)
        return float(total) / self.count

    def spread(self, dataset, batch_size):
        """Prepares this process's part of the batches for `fit`.

        Args:
            dataset: `tf.data.Dataset` or PyDataset.
            batch_size: int. Over all devices.
        """
        if self.processes == 1 or self.strategy is None:
            return dataset
        if isinstance(dataset, keras.utils.PyDataset):
            dataset = batches.as_tf_data(dataset)
        parts = dataset.rebatch(batch_size // self.count)
        return self.strategy.distribute_datasets_from_function(
            lambda context: parts
        )


def start(cpus=0):
    """Sets up all devices of all processes, before they are used.

    Args:
        cpus: int. The number of devices to split the processor into, for
            trials without accelerators. Defaults to `0`, which does not.

    Returns:
        `Devices`.

    Raises:
        ValueError: With torch.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return _start_jax(cpus)
    if backend == "tensorflow":
        return _start_tensorflow(cpus)
    raise ValueError(
        "`--distribute` works with the backends jax and tensorflow; Keras has "
        f"no distributed `fit` for others. Received: backend={backend}"
    )


def _start_jax(cpus):
    import jax

    if cpus:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", cpus)
    if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ:
        keras.distribution.initialize()
    # Each process reads its own share of the data.
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(auto_shard_dataset=False)
    )
    return Devices(jax.device_count(), jax.process_count(), jax.process_index())


def _start_tensorflow(cpus):
    import tensorflow as tf

    names = None
    if cpus:
        tf.config.set_visible_devices([], "GPU")
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * cpus,
        )
        names = [f"CPU:{index}" for index in range(cpus)]
    if "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        processes, index = _place(strategy.cluster_resolver)
    else:
        strategy = tf.distribute.MirroredStrategy(names)
        processes, index = 1, 0
    return Devices(strategy.num_replicas_in_sync, processes, index, strategy)


def _place(resolver):
    """Returns the number of TF_CONFIG's processes, and which of them this is.

    A chief, if there is one, is the first.
    """
    cluster = resolver.cluster_spec().as_dict()
    tasks = [
        (kind, index)
        for kind in ("chief", "worker")
        for index in range(len(cluster.get(kind, ())))
    ]
    task = resolver.task_type, resolver.task_id
    if task not in tasks:
        raise ValueError(
            "The `task` of TF_CONFIG should be a chief or a worker of its "
            f"`cluster`. Received: {task[0]} {task[1]} of {cluster}"
        )
    return len(tasks), tasks.index(task)


def synchronize_batch_norm(network):
    """Makes BatchNormalization use the whole batch, as on one device.

    It is for TensorFlow, where each replica has its part of the batch.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
