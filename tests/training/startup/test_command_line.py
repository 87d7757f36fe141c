import signal
import subprocess
import sys

import pytest

from training.startup import command_line

INTERRUPTED = """
import os, signal, time
from training.startup import command_line

def main():
    # As in a terminal: in the background of a shell Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

command_line.run(main)
"""


def test_ctrl_c_ends_a_command_in_a_line(pytestconfig):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "\nInterrupted.\n"


def test_options_are_not_abbreviated(capsys):
    parser = command_line.parser("A command.")
    parser.add_argument("--update", action="store_true")
    with pytest.raises(SystemExit):
        parser.parse_args(["--upd"])
    assert "unrecognized arguments: --upd" in capsys.readouterr().err


@pytest.mark.parametrize("answer, status", [(None, None), (1, 1)])
def test_a_command_ends_with_what_it_returns(answer, status):
    with pytest.raises(SystemExit) as end:
        command_line.run(lambda: answer)
    assert end.value.code == status
