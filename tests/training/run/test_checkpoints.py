"""Checkpoints under kills, damage and a full disk."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import disks
from training.run import checkpoints


def arrays(value):
    return [np.full((2, 3), value, "float32"), np.array([value, 0], "uint32")]


def test_load_gives_what_the_newest_save_took(tmp_path):
    for step in (5, 10, 120):
        checkpoints.save(tmp_path, step, arrays(step), {"rows": [step]})
    loaded, state = checkpoints.load(tmp_path)
    assert state == {"rows": [120]}
    for array, expected in zip(loaded, arrays(120), strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_two_checkpoints_are_kept(tmp_path):
    for step in (5, 10, 15):
        checkpoints.save(tmp_path, step, arrays(step), {})
    names = sorted(path.name[:8] for path in tmp_path.iterdir())
    assert names == ["00000010", "00000015"]


def test_nothing_written_is_none(tmp_path):
    assert checkpoints.load(tmp_path / "absent") is None


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    checkpoints.save(tmp_path, 5, arrays(5), {"step": 5})
    checkpoints.save(tmp_path, 10, arrays(10), {"step": 10})
    newest = max(tmp_path.iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(
        {"flip": content, "cut": content[:100], "empty": b""}[damage]
    )
    told = []
    loaded, state = checkpoints.load(tmp_path, warn=told.append)
    assert state == {"step": 5}
    np.testing.assert_array_equal(loaded[0], arrays(5)[0])
    assert len(told) == 1
    assert str(newest) in told[0]


def test_damaged_checkpoint_does_not_push_out_whole_ones(tmp_path):
    checkpoints.save(tmp_path, 5, arrays(5), {})
    checkpoints.save(tmp_path, 100, arrays(100), {})
    max(tmp_path.iterdir()).write_bytes(b"damaged")
    checkpoints.load(tmp_path, warn=lambda line: None)
    for step in (6, 7):
        checkpoints.save(tmp_path, step, arrays(step), {})
    assert len(list(tmp_path.glob("*.npz"))) == 2
    assert checkpoints.load(tmp_path)[0][0][0, 0] == 7


def test_all_damaged_is_an_error(tmp_path):
    checkpoints.save(tmp_path, 5, arrays(5), {})
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    for _ in range(2):  # and not the beginning of another run
        with pytest.raises(checkpoints.CheckpointError, match="is damaged"):
            checkpoints.load(tmp_path, warn=lambda line: None)


def test_one_process_puts_aside_what_all_pass_over(tmp_path):
    checkpoints.save(tmp_path, 5, arrays(5), {"step": 5})
    checkpoints.save(tmp_path, 10, arrays(10), {"step": 10})
    newest = max(tmp_path.iterdir())
    newest.write_bytes(b"damaged")
    told = []
    found = checkpoints.load(tmp_path, warn=told.append, mend=False)
    assert found[1] == {"step": 5}
    assert not told
    assert newest.exists()


def test_disk_without_room_keeps_the_checkpoint_before(tmp_path):
    checkpoints.save(tmp_path, 5, arrays(5), {"step": 5})
    with (
        disks.room_for(10_000),
        pytest.raises(checkpoints.CheckpointError, match="go on"),
    ):
        checkpoints.save(tmp_path, 10, [np.zeros(100_000)], {})
    assert checkpoints.load(tmp_path)[1] == {"step": 5}
    assert len(list(tmp_path.iterdir())) == 1


SAVE_FOREVER = """
import sys
import numpy as np
from training.run import checkpoints
step = 0
while True:
    step += 1
    array = np.full(5_000_000, step, "float32")
    checkpoints.save(sys.argv[1], step, [array], {"step": step})
"""


def test_kill_within_a_write_leaves_a_whole_checkpoint(tmp_path, pytestconfig):
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)],
        cwd=pytestconfig.rootpath,
    )
    deadline = time.monotonic() + 120
    partial = []
    while not partial and time.monotonic() < deadline:
        whole = list(tmp_path.glob("*.npz"))
        partial = len(whole) == 2 and list(tmp_path.glob("*.partial"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial
    told = []
    (array,), state = checkpoints.load(tmp_path, warn=told.append)
    assert not told
    assert (array == state["step"]).all()
    checkpoints.clean(tmp_path)
    assert not [n for n in os.listdir(tmp_path) if n.endswith("partial")]
