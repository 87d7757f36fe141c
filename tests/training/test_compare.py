"""The command that puts runs side by side."""

import csv
import json

import numpy as np
import pytest

import tiny_run
from training import compare


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return tiny_run.make(tmp_path_factory.mktemp("runs") / "complete")


@pytest.fixture
def make(complete, tmp_path):
    def make(folder_name, errors, **fields):
        """A run whose evaluations gave these errors, in percent."""
        folder = tmp_path / folder_name
        folder.mkdir()
        (folder / "model.weights.h5").touch()
        recipe = json.loads((complete / "recipe.json").read_text())
        (folder / "recipe.json").write_text(json.dumps(recipe | fields))
        lines = ["epoch,accuracy,val_accuracy,seconds"]
        for epoch, error in enumerate(errors, 1):
            lines.append(f"{epoch},0.75,{1 - error / 100},90")
        (folder / "log.csv").write_text("\n".join(lines))
        return str(folder)

    return make


def rows(text):
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
    ]


def test_seeds_share_a_row_with_mean_and_deviation(make, capsys):
    errors = [7.0, 7.5, 8.3]
    runs = [
        make(f"seed_{seed}", [50, error], seed=seed)
        for seed, error in enumerate(errors)
    ]
    compare.main(runs)
    header, _, row = rows(capsys.readouterr().out)
    assert header == ["seeds", "test error", "training error", "minutes"]
    mean, deviation = np.mean(errors), np.std(errors, ddof=1)
    assert row == [
        "0, 1, 2",
        f"{mean:.2f} ± {deviation:.2f} %",
        "25.00 ± 0.00 %",
        "3",
    ]


def test_a_column_for_what_differs_defaults_included(make, capsys):
    two = make("two", [9])
    four = make("four", [8], arguments={"depth": 8, "branches": 4})
    inception = make("inception", [10], builder="DILNet")
    compare.main([two, four, inception])
    header, _, *body = rows(capsys.readouterr().out)
    assert header[:3] == ["builder", "arguments.branches", "arguments.mapping"]
    assert [row[:5] for row in body] == [
        ["DMRNet", "2", "merge_and_run", "0", "9.00 %"],
        ["DMRNet", "4", "merge_and_run", "0", "8.00 %"],
        ["DILNet", "2", "–", "0", "10.00 %"],
    ]


def test_recipes_are_named_and_not_taken_apart(make, capsys):
    one = make("one", [9])
    other = make("other", [8], name="other", epochs=30, learning_rate=0.3)
    compare.main([one, other])
    header, _, *body = rows(capsys.readouterr().out)
    assert header == [
        "name",
        "seeds",
        "test error",
        "training error",
        "minutes",
    ]
    assert [row[0] for row in body] == ["tiny", "other"]


def test_other_data_are_another_row(make, capsys):
    one = make("one", [9], training_data="1f")
    other = make("other", [8], seed=1, training_data="2e")
    compare.main([one, other])
    header, _, *body = rows(capsys.readouterr().out)
    assert header[0] == "training_data"
    assert [row[0] for row in body] == ["1f", "2e"]


def test_the_ratio_of_moments_where_all_have_it(make, tmp_path, capsys):
    runs = [make("a", [9]), make("b", [8], seed=1)]
    for folder, ratio in (("a", 4.0), ("b", 0.25)):
        log = tmp_path / folder / "log.csv"
        log.write_text(
            "epoch,accuracy,val_accuracy,seconds,moment_ratio\n"
            f"1,0.9,0.9,60,{ratio}"
        )
    compare.main(runs)
    header, _, row = rows(capsys.readouterr().out)
    assert (header[-1], row[-1]) == ("moment ratio", "1")
    compare.main([*runs, make("c", [7], seed=2)])
    assert "moment ratio" not in capsys.readouterr().out


def test_held_out_images_are_called_so(make, capsys):
    compare.main([make("one", [9], validation=5000, train_split="train")])
    assert rows(capsys.readouterr().out)[0][1] == "held-out error"
    compare.main(
        [
            make("two", [9], validation=5000, train_split="train"),
            make("three", [9]),
        ]
    )
    assert rows(capsys.readouterr().out)[0][:3] == [
        "validation",
        "seeds",
        "error",
    ]


def test_what_is_left_out_is_named(make, tmp_path, capsys):
    first, again, begun = make("first", [9]), make("again", [7]), make("b", [1])
    (tmp_path / "b" / "model.weights.h5").unlink()
    compare.main([first, again, begun])
    printed = capsys.readouterr()
    assert rows(printed.out)[2][:2] == ["0", "9.00 %"]
    assert f"{again} repeats {first}, seed 0" in printed.err
    assert f"{begun} is not complete" in printed.err
    with pytest.raises(SystemExit, match="no complete run"):
        compare.main([begun])


def test_a_folder_that_is_no_run_is_refused(make, tmp_path):
    (tmp_path / "thesis").mkdir()
    with pytest.raises(SystemExit, match="`runs`.*thesis"):
        compare.main([make("one", [9]), str(tmp_path / "thesis")])


def test_a_log_without_its_numbers_is_refused(make, tmp_path):
    run = make("one", [9])
    (tmp_path / "one" / "log.csv").write_text("epoch,val_accuracy\n1,0.9\n")
    with pytest.raises(SystemExit, match="log.csv.*accuracy"):
        compare.main([run])


def test_a_run_without_a_seed_is_refused(make, tmp_path):
    run = make("one", [9])
    path = tmp_path / "one" / "recipe.json"
    recipe = json.loads(path.read_text())
    del recipe["seed"]
    path.write_text(json.dumps(recipe))
    with pytest.raises(SystemExit, match="no `seed`"):
        compare.main([run])


def test_a_row_for_each_run_as_csv(make, tmp_path):
    runs = [
        make("a", [9], arguments={"depth": 8}),
        make("b", [7.5], arguments={"depth": 14}, seed=3),
    ]
    path = tmp_path / "runs.csv"
    compare.main([*runs, "--csv", str(path)])
    with open(path, newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["folder"] for row in table] == runs
    assert [row["arguments.depth"] for row in table] == ["8", "14"]
    assert [row["seed"] for row in table] == ["0", "3"]
    assert [float(row["error"]) for row in table] == pytest.approx([9, 7.5])
    assert table[0]["minutes"] == "1.5"
