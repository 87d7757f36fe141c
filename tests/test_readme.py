"""What the documents say is true: examples, commands, links and figures."""

import ast
import csv
import json
import math
import pathlib
import re
import shlex
import tomllib

import pytest
import yaml

import draw_figures
from training import (
    analyse,
    benchmark,
    compare,
    demo,
    evaluate,
    package,
    publish,
    train,
)
from training.benchmarks import growth, input_pipeline
from training.examples import (
    anomaly_detection,
    fine_tune_folder,
    lesion_study_imagenet,
)

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = {
    name: (ROOT / name).read_text()
    for name in (
        "README.md",
        "training/README.md",
        "training/benchmark.md",
        "weights/README.md",
        "keras_resfam/analysis/README.md",
    )
}
README = DOCUMENTS["README.md"]
EXAMPLES = {
    f"{name}, {number}": example
    for name, document in DOCUMENTS.items()
    for number, example in enumerate(
        re.findall(r"```python\n(.*?)```", document, re.S)
    )
}


def section(document, title):
    text = DOCUMENTS[document]
    return re.search(rf"\n## {title}\n(.*?)(\n## |\Z)", text, re.S)[1]


def outcome(example, capsys, monkeypatch, folder):
    """Runs one of the examples; returns its names, and what it printed."""
    monkeypatch.chdir(folder)
    (folder / "weights").symlink_to(ROOT / "weights")
    names = {}
    exec(compile(EXAMPLES[example], example, "exec"), names)
    return names, capsys.readouterr().out


def test_length():
    assert len(README.splitlines()) <= 250


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples(example, capsys, monkeypatch, tmp_path):
    names, printed = outcome(example, capsys, monkeypatch, tmp_path)
    if "decode_predictions" in EXAMPLES[example]:
        # Four of scikit-learn's digits that were not trained on.
        assert re.findall(r"\('(\d)', ", printed) == ["0", "1", "2", "3"]
    if "fit(" in EXAMPLES[example]:
        assert names["model"].output_shape == (None, 2)
        assert "accuracy" in printed
    if "blocks" in names:
        assert len(names["blocks"]) == 16
        assert names["blocks"][0].name == "conv2_block1"


def unrolled(block):
    """The commands of a shell's loops, once for each value."""
    for name, values in re.findall(r"for (\w+) in ([^;]+); do", block):
        block = "\n".join(
            re.sub(rf"\$(\{{{name}\}}|{name}\b)", value, block)
            for value in values.split()
        )
    return block


def commands(script):
    """The arguments of each of the documents' calls of a script."""
    blocks = "\n".join(DOCUMENTS.values()).split("```")
    text = "\n".join(map(unrolled, blocks)).replace("\\\n", " ")
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
        ("-m training.benchmarks.growth", growth.parse_arguments),
        ("training/compare.py", compare.parse_arguments),
        ("training/demo.py", demo.parse_arguments),
        ("training/package.py", package.parse_arguments),
        ("training/publish.py", publish.parse_arguments),
        (
            "training/examples/fine_tune_folder.py",
            fine_tune_folder.parse_arguments,
        ),
        (
            "training/examples/anomaly_detection.py",
            anomaly_detection.parse_arguments,
        ),
        (
            "training/examples/lesion_study_imagenet.py",
            lesion_study_imagenet.parse_arguments,
        ),
    ],
)
def test_commands_are_understood(script, parse):
    found = commands(script)
    assert found
    for arguments in found:
        parse(arguments)


def test_commands_are_all_tested():
    text = "\n".join(DOCUMENTS.values())
    scripts = set(re.findall(r"python ((?:-m )?training[/.][\w/.]+)", text))
    (mark,) = test_commands_are_understood.pytestmark
    assert scripts == {script for script, _ in mark.args[1]}


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


@pytest.mark.backend_independent
def test_errors_of_trained_networks(quick_initializers):
    import keras_resfam
    from keras_resfam.pretrained import registry

    rows = re.findall(
        r"^\| \[`(.*?)`\]\(weights/(\w+)\).*? \| ([\d,]+) "
        r"\| (?:–|([\d.]+) %)(?: \(\d\))? \| (\**)([\d.]+) %\**"
        r" \| (\d+) / (.+) \|$",
        section("README.md", "Trained networks"),
        re.M,
    )
    networks = {network.name: network for network in registry.read()}
    assert {row[1] for row in rows} == set(networks)
    counts = {}
    for call, name, parameters, published, bold, error, epochs, theirs in rows:
        result = json.loads((ROOT / f"weights/{name}/result.json").read_text())
        recipe = json.loads((ROOT / f"weights/{name}/recipe.json").read_text())
        assert call == networks[name].call
        assert error == f"{result['error']:.2f}", name
        assert epochs == str(recipe["epochs"]), name
        if recipe["error"] is None:
            assert (published, bold, theirs) == ("", "", "–"), name
        else:
            assert float(published) == recipe["error"], name
            assert bold == "**" * (float(error) < float(published)), name
        told = re.search(r"in (\d+) epochs", recipe["note"])
        if told:
            assert theirs == told[1], name
        # Networks that differ in their training only are built once.
        architecture = (
            networks[name].builder,
            json.dumps(
                {
                    "input_shape": networks[name].input_shape,
                    "classes": networks[name].classes,
                    **networks[name].arguments,
                }
            ),
        )
        if architecture not in counts:
            builder, options = architecture
            model = getattr(keras_resfam, builder)(**json.loads(options))
            counts[architecture] = count(model)
        assert parameters == counts[architecture], name


def count(model):
    """The trainable parameters of a network, as the documents write them."""
    return f"{sum(math.prod(v.shape) for v in model.trainable_variables):,}"


@pytest.mark.backend_independent
def test_how_the_networks_were_trained():
    text = section("weights/README.md", "How the networks were trained")
    rows = re.findall(
        r"^\| \[(\w+)\]\(\1\) \| `(\w+)` \| ([\d.]+) % \| .+ "
        r"\| \[log\]\(\1/log.csv\) \|$",
        text,
        re.M,
    )
    folders = {path.parent.name for path in ROOT.glob("weights/*/recipe.json")}
    assert {name for name, *_ in rows} == folders
    command = "python training/train.py"
    (example,) = re.findall(rf"`({command} --recipe .*?)`", text, re.S)
    for name, trained_by, accuracy in rows:
        recipe = json.loads((ROOT / f"weights/{name}/recipe.json").read_text())
        with open(ROOT / f"weights/{name}/log.csv") as file:
            *_, last = csv.DictReader(file)
        assert trained_by == recipe["name"], name
        assert recipe["seed"] == 0, name
        assert last["epoch"] == str(recipe["epochs"]), name
        assert accuracy == f"{100 * float(last['accuracy']):.1f}", name
        words = shlex.split(recipe["command"].removeprefix(command))
        trained = [word for word in words if word != "--quiet"]
        anew = example.replace("dmrnet_14_cifar10_short", trained_by)
        anew = shlex.split(anew.removeprefix(command))
        assert trained in [anew, *commands("training/train.py")], name
        assert train.parse_arguments(trained).recipe == trained_by, name


@pytest.mark.backend_independent
def test_counts_are_those_of_the_builders(quick_initializers):
    import keras_resfam

    rows = re.findall(
        r"^\| `(\w+)(\(.*?\))` .*\| ([\d,]+) \| ([\d,]+) \|$",
        section("README.md", "Builders"),
        re.M,
    )
    builders = {
        name
        for name in keras_resfam.__all__
        if hasattr(getattr(keras_resfam, name), "__signature__")
    }
    assert {name for name, *_ in rows} == builders
    for name, arguments, multiply_adds, parameters in rows:
        keywords = ast.parse(f"f{arguments}").body[0].value.keywords
        written = {k.arg: ast.literal_eval(k.value) for k in keywords}
        builder = getattr(keras_resfam, name)
        assert written == architecture(builder), name
        model = builder()
        assert parameters == count(model), name
        millions = keras_resfam.count_multiply_adds(model) / 1e6
        assert multiply_adds == f"{millions:,.0f}", name


def architecture(builder):
    """The arguments of a builder before the common ones, with defaults."""
    parameters = builder.__signature__.parameters.values()
    defaults = {p.name: p.default for p in parameters}
    own = list(defaults)[: list(defaults).index("include_top")]
    return {name: defaults[name] for name in own}


@pytest.mark.parametrize("name", draw_figures.FIGURES)
def test_charts_are_those_that_are_drawn(name, quick_initializers):
    drawn = draw_figures.FIGURES[name]()
    assert (draw_figures.FOLDER / name).read_text() == drawn


def test_charts_agree_with_the_text():
    text = DOCUMENTS["keras_resfam/analysis/README.md"]
    low, high = draw_figures.PLAIN
    first, last = draw_figures.EFFECTIVE
    assert f"It is {low} to {high} % without any one" in text
    assert f"| intact | {draw_figures.INTACT} |" in text
    assert f"in paths of | {first} to {last} of 54 blocks |" in text


def test_one_version():
    import keras_resfam

    version = keras_resfam.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (latest, *_) = re.findall(
        r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert project["version"] == citation["version"] == latest == version


def test_papers_are_those_of_the_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    cited = {paper["url"] for paper in citation["references"]}
    section_links = re.findall(
        r"https://arxiv\.org/abs/[\d.]+", section("README.md", "Citation")
    )
    assert set(section_links) == cited
