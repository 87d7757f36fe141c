"""What all tests share."""

import os
import pathlib

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread each for what runs side by side: torch crawls otherwise.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# Most of a test on JAX is compilation: less optimized, and kept for the other
# processes and the next time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
CACHE = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

import tiny_run  # noqa: E402
from keras_resfam.initializers import (  # noqa: E402
    FanInNormal,
    FanInUniform,
    Orthonormal,
)


def pytest_collection_modifyitems(items):
    """What no backend takes part in is tested once, with TensorFlow."""
    if keras.backend.backend() == "tensorflow":
        return
    skip = pytest.mark.skip(reason="the same with each backend")
    for item in items:
        if item.get_closest_marker("backend_independent"):
            item.add_marker(skip)


@pytest.fixture
def quick_initializers(monkeypatch):
    """Cheap initial kernels, for tests of large networks' graphs.

    A hundred million normal numbers take seconds, and orthonormal ones
    minutes; these repeat a few of the right variance.
    """
    few = np.random.default_rng(0).normal(size=1021).astype("float32")

    def draw(self, generator, fan_in, filters):
        return np.resize(few, (fan_in, filters)) * float(np.sqrt(2 / fan_in))

    for initializer in (FanInNormal, FanInUniform, Orthonormal):
        monkeypatch.setattr(initializer, "_draw", draw)


@pytest.fixture(scope="module")
def empty_checkout(tmp_path_factory):
    """A checkout of the tests' own, with nothing in `weights/`."""
    with pytest.MonkeyPatch.context() as patch:
        yield tiny_run.use_checkout(tmp_path_factory.mktemp("checkout"), patch)


@pytest.fixture(scope="module")
def home(empty_checkout):
    """One with the network `dmrnet_8_digits`."""
    from training.networks.packaging import package

    package(tiny_run.make(empty_checkout / "runs" / "digits"))
    return empty_checkout
