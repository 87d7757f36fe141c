import dataclasses
import json

import numpy as np
import pytest
from matplotlib import pyplot

import dense_nets
import keras_resfam
import tiny_run
from keras_resfam.analysis import (
    gradient_by_path_length,
    lesion_study,
    path_lengths,
    pictures,
    read_records,
)
from keras_resfam.analysis.published import DELETIONS, SWAPS_BY_TAU
from training import analyse
from training.recipes.digits import RECIPES
from training.studies import pages
from training.studies.html import lesion_rows


@pytest.fixture(scope="module")
def model():
    return dense_nets.build()


@pytest.fixture(scope="module")
def records(model):
    return lesion_study(model, dense_nets.data(), trials=2, verbose=0)


def lines(figure):
    return figure.axes[0].get_lines()


def test_every_single_deletion_is_a_point(records):
    line = lines(pictures.plot_deletion(records))[0]
    errors = [r["error"] for r in records if r["study"] == "deletion"]
    assert line.get_xdata().tolist() == list(range(1, 9))
    assert line.get_ydata().tolist() == errors


def test_medians_of_ours_and_theirs(records):
    figure = pictures.plot_deletions(records, published=True)
    labels = {line.get_label(): line for line in lines(figure)}
    ours = labels["dense, median"].get_ydata()
    for count, median in enumerate(ours, start=1):
        errors = [
            r["error"]
            for r in records
            if (r["study"], r["count"]) == ("deletions", count)
        ]
        assert median == np.median(errors)
    theirs = labels["Veit et al., ResNet-110"]
    assert theirs.get_ydata().tolist() == list(DELETIONS.values())


def test_swaps_and_repetitions(records):
    figure = pictures.plot_swaps(records, published=True)
    taus = [r["kendall_tau"] for r in records if r["study"] == "swaps"]
    assert lines(figure)[0].get_xdata().tolist() == taus
    assert len(lines(figure)[-1].get_xdata()) == len(SWAPS_BY_TAU)
    assert len(lines(pictures.plot_repetitions(records))) >= 2


def test_two_networks_in_one_picture(records):
    both = records + [{**row, "network": "other"} for row in records]
    labels = [line.get_label() for line in lines(pictures.plot_deletion(both))]
    assert "dense" in labels and "other" in labels


def test_paths_and_gradients(model):
    result = gradient_by_path_length(
        model, *dense_nets.data(4), samples=1, verbose=0
    )
    bars = pictures.plot_path_lengths(path_lengths(model)).axes[0].patches
    assert [bar.get_height() for bar in bars][4] == pytest.approx(70 / 256)
    points = lines(pictures.plot_gradients(result))[0].get_ydata()
    np.testing.assert_array_equal(points, result["log10_gradient"])
    figure = pictures.plot_contributions(result, published=True)
    assert len(figure.axes[0].patches) == 10


@pytest.mark.parametrize("name", [r"a$\bad{$", "$", r"\$x", "a$b$c_{"])
def test_a_name_is_no_mathematics(model, records, name):
    named = [{**row, "network": name} for row in records]
    lengths = path_lengths(model)
    for figure in (
        pictures.plot_deletion(named),
        pictures.plot_swaps(named),
        pictures.plot_path_lengths(lengths, name),
    ):
        figure.canvas.draw()
        (legend,) = [axes.get_legend() for axes in figure.axes]
        first = legend.get_texts()[0].get_text().replace(r"\$", "$")
        assert first.startswith(name)


def test_pyplot_holds_no_figure(records):
    pictures.plot_deletion(records)
    assert pyplot.get_fignums() == []


def test_table_of_ours_and_theirs(records):
    rows = {name: (ours, theirs) for name, ours, theirs in lesion_rows(records)}
    assert rows["intact"] == (records[0]["error"], None)
    published = {name: t for name, _, t in lesion_rows(records, True)}
    assert published["intact"] == 6.032
    assert published["one block deleted, worst"] == 42.15
    assert published["random blocks deleted: 8, median"] == 18.5


def make_run(path, builder, arguments):
    """The folder of a run of the digits' recipe with another network."""
    tiny_run.make(path, builder, arguments)
    recipe = RECIPES[0].replace(builder=builder, arguments=arguments)
    description = {
        "classes": 10,
        "input_shape": [8, 8, 1],
        "preprocessing": "digits",
        "command": "python training/train.py",
    }
    description |= dataclasses.asdict(recipe)
    (path / "recipe.json").write_text(json.dumps(description))
    return path


def test_command_writes_csv_pictures_and_one_page(tmp_path, capsys):
    run = make_run(tmp_path / "run", "DMRNet", {"depth": 8})
    out = tmp_path / "out"
    arguments = [str(run), "--out", str(out), "--examples", "40"]
    arguments += ["--trials", "1", "--deletions", "2", "--swaps", "1"]
    arguments += ["--repetitions", "1", "--batch-size", "20"]
    arguments += ["--gradient-examples", "2", "--gradient-samples", "1"]
    analyse.main(arguments)
    records = read_records(out / "lesions.csv")
    assert len(records) == 1 + 3 + 6 + 2
    page = (out / "index.html").read_text()
    assert "<h1>run</h1>" in page and "DMRNet" in page
    assert f"{records[0]['error']:.2f}" in page
    assert page.count('src="data:image/svg+xml;base64,') == 5
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (out / "gradients.svg").read_text().startswith("<?xml")
    written = (out / "lesions.csv").stat().st_mtime_ns
    gradients = (out / "gradients.csv").read_bytes()
    analyse.main(arguments)
    assert (out / "gradients.csv").read_bytes() == gradients
    (out / "gradients.csv").write_bytes(b"")  # as a power cut may leave it
    analyse.main(arguments)
    assert (out / "gradients.csv").read_bytes() == gradients
    assert len(read_records(out / "lesions.csv")) == len(records)
    assert (out / "lesions.csv").stat().st_mtime_ns == written
    others = ["--gradient-samples", "2", "--trials", "2"]
    with pytest.raises(SystemExit, match="gradients.csv.*remove it.*'1'"):
        analyse.main([*arguments, *others])
    assert (out / "lesions.csv").stat().st_mtime_ns == written


@pytest.mark.parametrize("builder", ["OrthoPlainNet", "ResNet"])
def test_the_authors_stand_beside_residual_networks(builder, tmp_path):
    model = getattr(keras_resfam, builder)(depth=8, input_shape=(8, 8, 3))
    recipe = {"builder": builder, "arguments": {}, "dataset": "cifar10"}
    x, y = np.zeros((4, 8, 8, 3), "float32"), np.arange(4)
    few = {"max_deletions": 1, "max_swaps": 0, "max_repetitions": 0}
    records = lesion_study(model, (x, y), trials=1, **few)
    residual = builder == "ResNet"
    lengths = path_lengths(model) if residual else None
    gradients = residual and gradient_by_path_length(model, x, y, samples=1)
    pages.write_pages(model, recipe, records, lengths, gradients, tmp_path)
    page = (tmp_path / "index.html").read_text()
    # Of three blocks, none but the first keeps the shape.
    drawn = {"deletion", "deletions"}
    if residual:
        drawn |= {"path_lengths", "gradients", "contributions"}
    assert {path.stem for path in tmp_path.glob("*.svg")} == drawn
    assert "Blocks in another order: not measured. The network has no" in page
    assert "Several random blocks run twice: not measured." in page
    assert "deleted: not measured" not in page
    assert ("Veit et al." in page) == ("6.03" in page) == residual


@pytest.mark.parametrize("trained", [True, False])
def test_benchmark_prints_both_costs(trained, tmp_path, capsys):
    network = ["untrained", "--builder", "ResNet", "--set", "depth=14"]
    if trained:
        run = make_run(tmp_path / "run", "ResNet", {"depth": 14})
        network = [str(run)]
    analyse.main([*network, "--benchmark", "--batch-size", "2"])
    *_, shared, naive = capsys.readouterr().out.splitlines()
    assert naive.startswith("all single deletions, one by one")
    assert "5.00 x all blocks" in naive  # 6 lesions of 5 blocks each
    assert "3.50 x all blocks" in shared  # 6 + 5 + ... + 1


def test_arguments_that_a_builder_does_not_have_are_refused():
    network = ["untrained", "--builder", "ResNet", "--set", "dept=14"]
    with pytest.raises(SystemExit, match="depth, width.*Received: .*dept=14"):
        analyse.main([*network, "--benchmark"])


def test_folder_without_a_recipe_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="is neither a run"):
        analyse.main([str(tmp_path), "--benchmark"])
