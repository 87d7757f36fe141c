"""Files of HDF5 that are not to be trusted: read, or refused, and no more."""

import resource
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from keras_resfam import DMRNet
from keras_resfam.pretrained import hdf5, sources
from keras_resfam.pretrained.files import WEIGHTS

FILE = sources.CHECKOUT / "weights" / "dmrnet_8_digits" / WEIGHTS


def test_both_ways_of_reading_give_the_same():
    contents = FILE.read_bytes()
    here, apart = hdf5.read(contents), hdf5.read_apart(contents)
    assert list(here) == list(apart)
    for name, arrays in here.items():
        for ours, theirs in zip(arrays, apart[name], strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def test_types_that_keras_writes(tmp_path):
    path = tmp_path / "net.weights.h5"
    values = np.array([[1.5, -0.1], [3e38, np.inf]], "float32")
    narrow = values.view("uint32") >> 16  # bfloat16, cut
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/conv/vars")
        group.attrs["name"] = "stem"
        group["0"], group["1"] = values, values.astype("float64")
        group["2"] = narrow.astype("uint16").view("V2")
        group["2"].attrs["dtype"] = "bfloat16"
        group["3"], group["4"] = values.astype(">f4"), np.float32(2)
    for read in (hdf5.read, hdf5.read_apart):
        one, two, three, four, five = read(path.read_bytes())["stem"]
        np.testing.assert_array_equal(one, values)
        np.testing.assert_array_equal(two, values.astype("float64"))
        np.testing.assert_array_equal(three, (narrow << 16).view("float32"))
        assert three.dtype == "float32"
        np.testing.assert_array_equal(four, values)
        assert (five.shape, five) == ((), 2)


def test_flipped_bits_do_not_end_the_process():
    contents = FILE.read_bytes()
    # Of a datatype's class, on which HDF5 1.14 crashes; and some others.
    for place, bit in ((59561, 8), (59560, 1), (400, 2), (96, 1), (59700, 16)):
        damaged = bytearray(contents)
        damaged[place] ^= bit
        try:
            layers = hdf5.read_apart(bytes(damaged))
        except ValueError as error:
            assert str(error)
        else:
            assert layers


def test_a_crash_is_an_error(monkeypatch, tmp_path):
    script = tmp_path / "crash.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(hdf5, "__file__", str(script))
    with pytest.raises(ValueError, match="ended by SIGSEGV"):
        hdf5.read_apart(FILE.read_bytes())


def many_links(group):
    group["0"] = np.ones(2**19, "float32")
    for index in range(1, 12):
        group[str(index)] = group["0"]


def many_layers_of_one(group):
    layers = group.file["layers"]
    group["0"] = np.ones(2**19, "float32")
    for index in range(2000):
        other = layers.create_group(f"w{index}/vars")
        other.attrs["name"] = f"w{index}"
        other["0"] = group["0"]


def many_variables(group):
    for index in range(2000):
        group[str(index)] = np.ones(1, "float32")


def one_chunk(group):
    group.create_dataset(
        "0", data=np.zeros(2**26, "float32"), chunks=(2**26,), compression=9
    )


def texts(group):
    values = np.array(["x" * 100] * 20_000, dtype=object)
    group.create_dataset("0", data=values, dtype=h5py.string_dtype())


def long_name(group):
    group["0"] = np.ones(1, "float32")
    group.attrs["name"] = "z" * 60_000


def many_groups(group):
    layers = group.file["layers"]
    for index in range(hdf5.MOST_LAYERS):
        layers[f"link{index}"] = group


@pytest.mark.parametrize(
    ("fill", "named"),
    [
        (many_links, "arrays have more"),
        (many_layers_of_one, "arrays have more"),
        (many_variables, "at most 16 members"),
        (one_chunk, "contiguous and uncompressed"),
        (texts, "Received: object"),
        (long_name, "does not have the names of its layers"),
        (many_groups, "at most 20,000 members"),
    ],
)
def test_small_files_that_ask_for_much(tmp_path, fill, named):
    path = tmp_path / "bomb.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/z/vars")
        group.attrs["name"] = "z"
        fill(group)
    options = {"input_shape": (8, 8, 1), "include_preprocessing": "digits"}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    with pytest.raises(ValueError, match=named):
        DMRNet(depth=8, weights=path, **options)
    assert time.perf_counter() - begun < 20  # on a machine that is busy
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 100_000  # KiB


def test_the_process_that_reads_has_little_memory(monkeypatch):
    """Were a file to ask for more in a way that nobody has thought of."""
    greedy = (
        "import resource, sys\n"
        f"sys.argv = ['', {hdf5.__file__!r}]\n"
        "import runpy; module = runpy.run_path(sys.argv[1])\n"
        "module['_limit'](10**6)\n"
        "bytearray(2 * module['_MEMORY'])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", greedy], capture_output=True, text=True
    )
    assert "MemoryError" in ended.stderr


def test_what_is_pinned_is_read_at_once(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a process for a file of our own")

    monkeypatch.setattr(hdf5, "read_apart", refuse)
    DMRNet(depth=8, weights=FILE.parent)
    DMRNet(depth=8, weights="digits")
