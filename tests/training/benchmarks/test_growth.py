import keras
import pytest

from training.benchmarks import growth

BACKEND = keras.backend.backend()
SMALL = {"depth": 8, "width": 1}


def options(*arguments):
    arguments = "--backend", BACKEND, "--batch", "2", *arguments
    return growth.parse_arguments(arguments)


class Connection:
    def send(self, report):
        self.report = report


@pytest.mark.parametrize("task", growth.TASKS)
def test_every_task_is_measured(task, tmp_path, monkeypatch):
    monkeypatch.setattr(growth.signal, "signal", lambda *_: None)
    monkeypatch.setattr(growth.hardware, "keep_freed_memory", lambda: None)
    connection = Connection()
    growth.work(connection, task, SMALL, options(), tmp_path)
    assert connection.report["seconds"] > 0
    assert connection.report["memory"] > 1e8
    assert (tmp_path / "8_1.keras").exists() == (task in ("save", "load"))


def test_a_process_reports_what_failed(capsys):
    wrong = [{"depth": 9, "width": 1}, SMALL]
    assert growth.print_growth("depth", wrong, options("--tasks", "build"))
    *_, row, reason = capsys.readouterr().out.splitlines()
    assert row.split() == ["build", "failed"]  # and nothing deeper is tried
    assert reason.startswith("build, {'depth': 9, 'width': 1}: `depth`")


def test_a_task_that_outlasts_its_limit_is_ended(tmp_path):
    short = options()
    short.limit = 0.01
    report = growth.measure("build", SMALL, short, tmp_path)
    assert report == {}
    assert growth.cell(report, options()) == "over 600 s"


def test_cells():
    report = {"seconds": 1.234, "memory": 1500 * 2**20}
    assert growth.cell(report, options()) == "1.23 s 1,500"


@pytest.mark.parametrize("wrong", [["--depths", "0"], ["--tasks", "fly"]])
def test_unknown_options_are_errors(wrong):
    with pytest.raises(SystemExit) as error:
        growth.parse_arguments(wrong)
    assert error.value.code == 2
