"""What recipe.json says: read in one place, or refused in one error."""

import json

import pytest

import tiny_run
from training.run import description


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    run = tiny_run.make(tmp_path_factory.mktemp("runs") / "run")
    return json.loads((run / "recipe.json").read_text())


def write(tmp_path, contents):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(contents))
    return path


def test_it_is_read_as_it_is(told, tmp_path):
    assert description.read(write(tmp_path, told)) == told


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("builder", "list_weights"),
        ("builder", ["DMRNet"]),
        ("builder", None),
        ("arguments", [8]),
        ("arguments", {"depht": 8}),
        ("arguments", {"weights": "digits"}),
        ("dataset", None),
        ("dataset", ["digits"]),
        ("input_shape", 8),
        ("input_shape", [8, 8]),
        ("input_shape", [8, 8, True]),
        ("input_shape", [8, 8, -1]),
        ("classes", "10"),
        ("classes", 0),
        ("preprocessing", "garbage"),
        ("preprocessing", ["digits"]),
        ("preprocessing", None),
        ("epochs", "1"),
        ("error", "2.25"),
        ("note", None),
        ("test_split", 3),
        ("command", 3),
        ("continued", {}),
        ("continued", [3]),
        ("continued", [{"epoch": 1, "batch": 5}]),
        ("continued", [{"epoch": "1", "batch": 5, "command": "x"}]),
        ("validation", "5000"),
        ("image_size", [32]),
        ("weights", 3),
        ("compiled", 1),
        ("seed", "0"),
        ("seed", None),
    ],
)
def test_a_field_that_is_something_else(told, tmp_path, field, value):
    path = write(tmp_path, {**told, field: value})
    named = "command" if field == "continued" else field
    with pytest.raises(ValueError, match=f"recipe.json.*`({field}|{named})`"):
        description.read(path)


@pytest.mark.parametrize(
    "field", ["builder", "arguments", "dataset", "classes", "epochs", "command"]
)
def test_a_field_that_is_missing(told, tmp_path, field):
    path = write(tmp_path, {k: v for k, v in told.items() if k != field})
    with pytest.raises(ValueError, match=f"`{field}` should be .*no `{field}`"):
        description.read(path)


@pytest.mark.parametrize("text", ["", "[]", "3", '"x"', "[" * 100_000, "\xff"])
def test_a_file_of_something_else(tmp_path, text):
    path = tmp_path / "recipe.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="as train.py writes it. It should be"):
        description.read(path)
