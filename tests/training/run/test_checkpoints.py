"""Checkpoints under kills, damage and a full disk."""

import io
import os
import shutil
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
        pytest.raises(checkpoints.CheckpointError, match="to continue"),
    ):
        checkpoints.save(tmp_path, 10, [np.zeros(100_000)], {})
    assert checkpoints.load(tmp_path)[1] == {"step": 5}
    assert len(list(tmp_path.iterdir())) == 1


def test_copies_of_a_checkpoint_are_the_users(tmp_path):
    for step in (500, 1000):
        checkpoints.save(tmp_path, step, arrays(step), {"step": step})
    newest = max(tmp_path.iterdir())
    copies = [
        shutil.copy(newest, tmp_path / name)
        for name in (
            f"best-{newest.name}",
            f"9{newest.name}.npz",
            newest.name.replace(".npz", " (1).npz"),
            newest.name.replace(".npz", "-copy.npz"),
            "mine.damaged",
            "mine.partial",
        )
    ]
    checkpoints.save(tmp_path, 1500, arrays(1500), {"step": 1500})
    checkpoints.clean(tmp_path)
    assert all(path.exists() for path in copies)
    mine = set(tmp_path.iterdir()) - set(copies)
    assert {path.name[:9] for path in mine} == {"00001000-", "00001500-"}
    assert checkpoints.load(tmp_path)[1] == {"step": 1500}
    for path in mine:
        path.unlink()
    assert checkpoints.load(tmp_path) is None


def test_more_than_a_hundred_million_steps_come_after(tmp_path):
    for step in (99_999_999, 100_000_000, 100_000_001):
        checkpoints.save(tmp_path, step, arrays(1), {"step": step})
    assert checkpoints.load(tmp_path)[1] == {"step": 100_000_001}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_with_the_name_of_a_checkpoint(tmp_path):
    checkpoints.save(tmp_path, 5, arrays(5), {"step": 5})
    folder = tmp_path / f"00000010-{'0' * 16}.npz"
    folder.mkdir()
    told = []
    assert checkpoints.load(tmp_path, warn=told.append)[1] == {"step": 5}
    assert len(told) == 1 and str(folder) in told[0]
    folder.mkdir()
    for step in (6, 7, 8):
        checkpoints.save(tmp_path, step, arrays(step), {"step": step})
    assert checkpoints.load(tmp_path, warn=told.append)[1] == {"step": 8}


def forge(folder, contents):
    """Puts down a checkpoint of any contents, under the name that is right."""
    path = folder / "forged"
    path.write_bytes(contents)
    path.rename(folder / f"00000099-{checkpoints._digest(path)}.npz")


def archive(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"text",
        archive(),
        archive(state="{}", other=np.ones(2)),
        archive(state="{", **{"0": np.ones(2)}),
        archive(state="[" * 100_000, **{"0": np.ones(2)}),
        archive(state=np.array([{}], dtype=object)),
        archive(state="{}", **{"0": np.ones(2)})[:200] + bytes(300),
    ],
)
def test_forged_checkpoints_are_an_error(tmp_path, contents):
    checkpoints.save(tmp_path, 5, arrays(5), {"step": 5})
    forge(tmp_path, contents)
    with pytest.raises(checkpoints.CheckpointError, match="not written by tra"):
        checkpoints.load(tmp_path)


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
