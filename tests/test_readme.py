"""The README's Python runs as it stands, and so do commands and links."""

import csv
import json
import math
import pathlib
import re
import shlex

import pytest

from training import analyse, benchmark, evaluate, package, publish, train
from training.benchmarks import input_pipeline

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = {
    name: (ROOT / name).read_text()
    for name in ("README.md", "training/benchmark.md", "weights/README.md")
}
README = DOCUMENTS["README.md"]


def section(title):
    return re.search(rf"\n## {title}\n(.*?)(\n## |\Z)", README, re.S)[1]


RECIPES = sorted(ROOT.glob("weights/*/recipe.json"))
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)


def outcome(number, capsys, monkeypatch, folder):
    """Runs one of the examples; returns its names, and what it printed."""
    monkeypatch.chdir(folder)
    (folder / "weights").symlink_to(ROOT / "weights")
    names = {}
    exec(compile(EXAMPLES[number], f"README.md, {number}", "exec"), names)
    return names, capsys.readouterr().out


def test_a_prediction(capsys, monkeypatch, tmp_path):
    _, printed = outcome(0, capsys, monkeypatch, tmp_path)
    # Four of scikit-learn's digits that were not trained on: 0, 1, 2, 3.
    assert re.findall(r"\('(\d)', ", printed) == ["0", "1", "2", "3"]


def test_fine_tuning(capsys, monkeypatch, tmp_path):
    names, printed = outcome(1, capsys, monkeypatch, tmp_path)
    assert names["model"].output_shape == (None, 2)
    assert "accuracy" in printed


@pytest.mark.parametrize("number", range(2, len(EXAMPLES)))
def test_examples(number, capsys, monkeypatch, tmp_path):
    names, _ = outcome(number, capsys, monkeypatch, tmp_path)
    if "blocks" in names:
        assert len(names["blocks"]) == 16
        assert names["blocks"][0].name == "conv2_block1"


def commands(script):
    """The arguments of each of the documents' calls of a script."""
    text = "\n".join(DOCUMENTS.values())
    text = text.replace("\\\n", " ").replace("$s", "0")  # a loop's
    found = re.findall(rf"python {script} ?([^#`\n|&]*)", text)
    return [shlex.split(arguments) for arguments in found]


def parse_training(arguments):
    train.chosen_recipe(train.parse_arguments(arguments))


@pytest.mark.parametrize(
    ("script", "parse"),
    [
        ("training/train.py", parse_training),
        ("training/evaluate.py", evaluate.parse_arguments),
        ("training/analyse.py", analyse.parse_arguments),
        ("training/benchmark.py", benchmark.parse_arguments),
        (
            "-m training.benchmarks.input_pipeline",
            input_pipeline.parse_arguments,
        ),
        ("training/package.py", package.parse_arguments),
        ("training/publish.py", publish.parse_arguments),
    ],
)
def test_commands_are_understood(script, parse):
    found = commands(script)
    assert found
    for arguments in found:
        parse(arguments)


def anchors(document):
    """The names that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document, re.M)
    return {
        re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\((?!https?://)([^)]*)\)", DOCUMENTS[name])
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_trained_networks_are_those_of_weights():
    rows = re.findall(
        r"^\| `.*?\| [\d,]+ \|.*?\| \**([\d.]+) %\**, (\d+) epochs "
        r"\| ([\d.]+) % \|.*\| `(\w+)` "
        r"\| \[log\]\((weights/\w+)/log.csv\) \|$",
        section("Trained networks"),
        re.M,
    )
    folders = {str(p.parent.relative_to(ROOT)) for p in RECIPES}
    assert {folder for *_, folder in rows} == folders
    command = "python training/train.py"
    (example,) = re.findall(
        rf"`({command} --recipe .*?)`", section("Trained networks"), re.S
    )
    for error, epochs, accuracy, name, folder in rows:
        result = json.loads((ROOT / folder / "result.json").read_text())
        recipe = json.loads((ROOT / folder / "recipe.json").read_text())
        with open(ROOT / folder / "log.csv") as file:
            *_, last = csv.DictReader(file)
        assert error == f"{result['error']:.2f}", folder
        assert name == recipe["name"], folder
        assert epochs == last["epoch"] == str(recipe["epochs"]), folder
        assert accuracy == f"{100 * float(last['accuracy']):.1f}", folder
        words = shlex.split(recipe["command"].removeprefix(command))
        trained = [word for word in words if word != "--quiet"]
        anew = example.replace("dmrnet_14_cifar10_short", name)
        anew = shlex.split(anew.removeprefix(command))
        assert trained in [anew, *commands("training/train.py")], folder
        assert train.parse_arguments(trained).recipe == name, folder


def test_parameter_counts_are_those_of_the_builders(quick_initializers):
    import keras_resfam

    rows = re.findall(
        r"^\| `(\w+)\(.*?\)` .*\| ([\d,]+) \|$", section("Networks"), re.M
    )
    builders = {
        name
        for name in keras_resfam.__all__
        if hasattr(getattr(keras_resfam, name), "__signature__")
    }
    assert {name for name, _ in rows} == builders
    for name, count in rows:
        model = getattr(keras_resfam, name)()
        found = sum(math.prod(v.shape) for v in model.trainable_variables)
        assert f"{found:,}" == count, name
