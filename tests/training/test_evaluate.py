"""The measures against loops, and the script on real runs."""

import json
import shutil
import sys
import warnings

import keras
import numpy as np
import pytest
from huggingface_hub import ModelCard

import keras_resfam
import photographs
from keras_resfam.pretrained import sources
from keras_resfam.pretrained.files import describe
from tiny_tfds import write_images
from training import evaluate, train
from training.images import evaluation, reading
from training.networks import accuracy, loading
from training.recipes import find
from training.run import session
from training.run.distribution import Devices
from training.run.task import load_task

RNG = np.random.default_rng(0)
FOLDER = sources.CHECKOUT / "weights" / "dmrnet_8_digits"


def test_measures_by_loops():
    logits = RNG.normal(size=(200, 7)) * 2
    labels = RNG.integers(0, 7, 200)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    result = accuracy.metrics(np.log(probabilities), labels)

    wrong, beyond, nll = 0, 0, 0.0
    bins = [[] for _ in range(15)]
    wrong_of = {k: [] for k in range(7)}
    for p, label in zip(probabilities, labels, strict=True):
        order = sorted(range(7), key=lambda k: -p[k])
        wrong += order[0] != label
        beyond += label not in order[:5]
        nll -= np.log(p[label])
        bins[int(p.max() * 15)].append((p.max(), order[0] == label))
        wrong_of[label].append(order[0] != label)
    gap = sum(
        len(b)
        / 200
        * abs(np.mean([c for c, _ in b]) - np.mean([r for _, r in b]))
        for b in bins
        if b
    )
    assert result["examples"] == 200
    assert result["error"] == wrong / 2
    assert result["accuracy"] == 100 - wrong / 2
    assert result["top5_error"] == beyond / 2
    few = accuracy.metrics(accuracy.log_softmax(logits[:, :5]), labels % 5)
    assert result.keys() - few.keys() == {"top5_error"}
    assert result["nll"] == pytest.approx(nll / 200)
    assert result["calibration_error"] == pytest.approx(100 * gap)
    for k, values in wrong_of.items():
        assert result["per_class"][str(k)] == pytest.approx(
            100 * np.mean(values)
        )


@pytest.mark.parametrize("published", [False, True])
def test_images_that_were_scaled_before_are_warned_of(published):
    """Of a network of the builder's, and of one saved with Normalization."""
    if published:
        model = loading.without_softmax(keras.saving.load_model(FOLDER))
    else:
        model = keras_resfam.DMRNet(
            depth=8, weights="digits", classifier_activation=None
        )
    x = RNG.uniform(0, 255, (4, 8, 8, 1)).astype("float32")
    with pytest.warns(UserWarning, match="means 77.85 and the standard"):
        accuracy.evaluate(model, [(x / 255, np.arange(4))])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        accuracy.evaluate(model, [(x, np.arange(4))])


def test_certain_answers_fall_in_the_last_bin():
    right = np.array([True, False, True, True])
    assert accuracy.calibration_error(np.ones(4), right) == 25


def test_evaluates_logits_in_batches_of_any_size():
    images = RNG.integers(0, 256, (30, 4, 4, 1), dtype="uint8")
    labels = RNG.integers(0, 3, 30)
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    kernel, bias = model.get_weights()
    powers = np.exp(images.reshape(30, 16) / 255 @ kernel + bias)
    logs = np.log(powers / powers.sum(axis=1, keepdims=True))
    expected = accuracy.metrics(logs, labels, ("a", "b", "c"))
    for size in (7, 30):
        batches = evaluation.in_batches(images, labels, size)
        found = accuracy.evaluate(model, batches, ("a", "b", "c"))
        assert found["error"] == expected["error"]
        assert found["nll"] == pytest.approx(expected["nll"], rel=1e-5)
        assert list(found["per_class"]) == ["a", "b", "c"]


def test_images_and_labels_that_do_not_fit():
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    images = np.zeros((2, 4, 4, 1), "uint8")
    with pytest.raises(ValueError, match=r"\(4, 4, 1\) .*\(4, 4, 3\)"):
        accuracy.evaluate(model, [(np.zeros((2, 4, 4, 3)), [0, 1])])
    for labels in ([0, -1], [0, 16]):
        with pytest.raises(ValueError, match="should be 0 to 15"):
            accuracy.evaluate(model, [(images, labels)])


def test_logits_that_are_not_finite_are_refused():
    overflows = keras.layers.Rescaling(1e30)  # where an image has 1e30
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), overflows, keras.layers.Flatten()]
    )
    images = np.zeros((3, 4, 4, 1), "float32")
    images[1, 2, 0] = 1e30
    with pytest.raises(ValueError, match="finite.*Received: .* 1 of 3 images"):
        accuracy.evaluate(model, [(images, [0, 1, 2])])


@pytest.mark.parametrize("examples", [1, 7, 8, 30, 99, None])
def test_the_first_examples_of_batches(examples):
    numbers = np.arange(30)
    batches = evaluation.in_batches(numbers[:, None], numbers, 7)
    images, labels = evaluation.first_examples(batches, examples)
    np.testing.assert_array_equal(labels, numbers[:examples])
    np.testing.assert_array_equal(images[:, 0], numbers[:examples])


@pytest.fixture
def run(tmp_path):
    """A run's folder, of a network that is not trained."""
    recipe = find("digits").replace(builder="ResNet", arguments={"depth": 8})
    network = session.prepare(recipe, tmp_path).trainer.network
    network.save_weights(tmp_path / "model.weights.h5")
    return tmp_path, network


def test_script_measures_a_run(run, monkeypatch, capsys):
    folder, network = run
    backend = keras.backend.backend()
    monkeypatch.setattr(sys, "argv", ["training/evaluate.py", str(folder)])
    evaluate.main([str(folder)])
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((folder / "result.json").read_text())
    assert printed == written
    images, labels = reading.load("digits", "test")
    batches = evaluation.in_batches(images, labels)
    expected = accuracy.evaluate(network, batches)
    weights = (folder / "model.weights.h5").read_bytes()
    assert written == {
        **expected,
        "dataset": "digits",
        "split": "test",
        "weights": describe(weights),
        "backend": backend,
        "versions": written["versions"],
        "command": f"python training/evaluate.py {folder}",
    }
    assert set(written["versions"]) == {"keras", "numpy", backend}


@pytest.fixture
def pictures(run):
    """A run of images of 32 x 32, in a folder with those of others."""
    folder, _ = run
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe |= {"dataset": "mine", "input_shape": [32, 32, 3]}
    recipe["preprocessing"] = "cifar10"
    (folder / "recipe.json").write_text(json.dumps(recipe))
    network = keras_resfam.ResNet(
        depth=8, classes=10, include_preprocessing="cifar10"
    )
    network.save_weights(folder / "model.weights.h5")
    for file in folder.glob("*.sha256"):
        file.unlink()
    for name, count in (("mine", 60), ("others", 20)):
        images = RNG.integers(0, 256, (count, 32, 32, 3), dtype="uint8")
        labels = np.argmax(network.predict_on_batch(images), axis=1)
        labels[::5] = (labels[::5] + 1) % 10  # which it has wrong
        np.savez(folder / f"{name}.npz", x_test=images, y_test=labels)
    return folder


def test_what_else_is_asked(pictures, capsys):
    asked = (
        "--calibrate --corruptions --examples=5 --ood=others "
        f"--data-dir={pictures} --reliability={pictures}/r.svg"
    )
    evaluate.main([str(pictures), *asked.split()])
    found = json.loads(capsys.readouterr().out)
    assert json.loads((pictures / "result.json").read_text()) == found
    assert found["error"] == 20
    measured = found["calibration"]["measured_on"]
    assert measured == {"split": "test[1::2]", "examples": 30}
    assert found["calibration"]["temperature"] > 0
    assert found["corruptions"]["examples"] == 5
    assert found["out_of_distribution"]["others"]["examples"] == 20
    assert "<svg" in (pictures / "r.svg").read_text()


@pytest.fixture
def photos(run, tmp_path):
    """A run on photographs, in two classes, and the folder of images."""
    folder, _ = run
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe |= {
        "dataset": "shapes",
        "classes": 2,
        "class_names": ["blue", "red"],
        "input_shape": [32, 32, 3],
        "image_size": 32,
        "preprocessing": "cifar10",
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    network = keras_resfam.ResNet(
        depth=8, classes=2, include_preprocessing="cifar10"
    )
    network.save_weights(folder / "model.weights.h5")
    for file in folder.glob("*.sha256"):
        file.unlink()
    return folder, photographs.write(tmp_path / "photos")


def test_what_else_is_asked_of_photographs(photos, tmp_path, capsys):
    """Corrupted, and told from a folder of others in no classes."""
    folder, root = photos
    others = photographs.write(tmp_path / "others", colors={"x": (0, 90, 0)})
    options = f"--data-dir={root} --corruptions --examples=5 --ood={others}"
    evaluate.main([str(folder), *options.split()])
    found = json.loads(capsys.readouterr().out)
    assert list(found["per_class"]) == ["blue", "red"]
    assert found["corruptions"]["examples"] == 5

    model = keras_resfam.ResNet(
        depth=8, weights=str(folder), classifier_activation=None
    )
    images, _ = reading.photographs("shapes", "test", root, 32)
    paths = sorted(path for path in others.rglob("*.*"))
    certain, doubtful = (
        np.ptp(model.predict(x, verbose=0).astype("float64"), axis=1)
        for x in (images[:], keras_resfam.load_images(paths, 32))
    )  # the largest of two probabilities grows with their logits' distance
    above = certain[:, None] > doubtful[None]
    told = found["out_of_distribution"][str(others)]
    assert told["examples"] == len(paths) == 16
    assert told["auroc_probability"] == pytest.approx(100 * above.mean())


def test_a_saved_model_tells_how_photographs_are_cut(photos, tmp_path, capsys):
    folder, root = photos
    model = keras_resfam.ResNet(depth=8, weights=str(folder))
    model.get_layer("normalization").data_config = {"interpolation": "box"}
    file = tmp_path / "model.keras"
    model.save(file)
    options = [str(file), "--dataset=shapes", f"--data-dir={root}"]
    evaluate.main(options)
    found = json.loads(capsys.readouterr().out)

    images, labels = reading.photographs(
        "shapes", "test", root, 32, crop=1.0, interpolation="box"
    )
    expected = model.predict(images[:], verbose=0)[range(8), labels]
    assert found["nll"] == pytest.approx(-np.log(expected).mean(), rel=1e-4)


def test_others_than_what_is_measured(photos, tmp_path, monkeypatch):
    folder, root = photos
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for other, told in (
        ("cifar100", "folder of images if .*: --ood cifar100, --data-dir"),
        ("nowhere", "folder of images if .*: --ood nowhere, --data-dir"),
        ("photos/test", "outside of `--data-dir`. Received: --ood photos/test"),
        (".", "outside of `--data-dir`. Received: --ood ."),
        ("empty", "`--ood` should be .*: --ood empty, which has no files"),
    ):
        options = [f"--data-dir={root}", f"--ood={other}"]
        with pytest.raises(SystemExit, match=told):
            evaluate.main([str(folder), *options])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("--fit-on=train", "should come with `--calibrate`"),
        ("--calibrate --fit-on=test", "other images than those"),
        ("--examples=5", "should come with `--corruptions`"),
        ("--corruptions", r"\(32, 32, 3\).* of shape \(8, 8, 1\)"),
        ("--ood=digits", "another data set than .* --ood digits"),
        ("--ood=mine --data-dir=x.npz", "folder of images if .*x.npz"),
        ("--split=train --update", "measured on the test images"),
        ("--reliability=no/x.svg", "--reliability no/x.svg"),
    ],
)
def test_what_cannot_be_asked(asked, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x_test=[0], y_test=[0])
    network = [str(FOLDER)]
    if "data-dir" in asked:
        network += ["--dataset=others"]
    with pytest.raises(SystemExit, match=told):
        evaluate.main([*network, *asked.split()])


def test_a_damaged_file_ends_in_a_line(run):
    folder, _ = run
    file = folder / "model.weights.h5"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(SystemExit, match="evaluate.py: .*model.weights.h5"):
        evaluate.main([str(folder)])


def test_other_splits_are_not_the_result(run, capsys):
    folder, _ = run
    evaluate.main([str(folder), "--split", "train"])
    assert json.loads(capsys.readouterr().out)["examples"] == 1437
    assert not (folder / "result.json").exists()
    output = folder / "train.json"
    evaluate.main([str(folder), "--split=train", f"--output={output}"])
    assert json.loads(output.read_text())["split"] == "train"


@pytest.mark.parametrize("source", ["arrays", "shards"])
def test_what_was_held_out_is_measured(source, tmp_path):
    """Of data without test images, whatever order they come in."""
    images = RNG.integers(0, 256, (200, 8, 8, 1), dtype="uint8")
    labels = np.arange(200) % 10
    data_dir = tmp_path
    if source == "arrays":
        data_dir = tmp_path / "pictures.npz"
        np.savez(data_dir, x_train=images, y_train=labels)
    else:
        write_images(tmp_path, "pictures", images, labels, 10, shards=4)
    recipe = find("digits").replace(dataset="pictures", validation=50)
    task = load_task(recipe, 0, data_dir, Devices())
    trained, held_out = (
        {image.tobytes() for image in part.images}
        for part in (task.epochs, task.evaluation)
    )
    assert (len(trained), len(held_out)) == (150, 50)
    assert not trained & held_out

    recipe = vars(recipe)
    split = evaluation.own_split(recipe, "pictures", data_dir)
    batches, _ = evaluation.load_data("pictures", split, recipe, data_dir)
    measured, _ = evaluation.first_examples(batches)
    assert {image.tobytes() for image in measured} == held_out
    assert len(measured) == 50


def test_arrays_are_of_one_size_whatever_the_recipe_streams(tmp_path):
    images = RNG.integers(0, 256, (20, 8, 8, 3), dtype="uint8")
    path = tmp_path / "mine.npz"
    np.savez(path, x_test=images, y_test=np.arange(20) % 4)
    recipe = {"image_size": 8}
    batches, _ = evaluation.load_data("mine", "test", recipe, path)
    measured, _ = evaluation.first_examples(batches)
    np.testing.assert_array_equal(measured, images)
    batches, _ = evaluation.load_data("digits", "test", recipe, None)
    assert len(evaluation.first_examples(batches)[0]) == 360


def test_without_a_test_split_in_the_arrays_it_is_what_was_held_out(tmp_path):
    path = tmp_path / "cifar10.npz"
    np.savez(path, x_train=np.zeros((9, 4, 4, 3), "uint8"), y_train=[0] * 9)
    recipe = vars(find("wrn_16_4_cifar10").replace(validation=3))
    assert evaluation.own_split(recipe, "cifar10", path) == "train[-3:]"


@pytest.mark.parametrize("split", ["test[:100]", "train[:5]+test", "extra[9:]"])
def test_a_part_of_a_split_is_there_where_the_split_is(tmp_path, split):
    there = "extra" not in split
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=[0], x_test=[0])
    write_images(
        tmp_path, "mine", np.zeros((4, 8, 8, 1), "uint8"), range(4), classes=4
    )
    for name, data_dir in (
        ("digits", None),
        ("mine", path),
        ("mine", tmp_path),
    ):
        assert reading.has_split(name, split, data_dir) == there
    path.unlink()  # what is left is of TFDS
    assert reading.has_split("mine", split, tmp_path) == there


def test_other_data_are_measured_on_their_test_split():
    recipe = vars(find("fine_tune").replace(dataset="mine", validation=50))
    for dataset, split in (("cifar10", "test"), ("imagenet2012", "validation")):
        assert evaluation.own_split(recipe, dataset, None) == split


@pytest.mark.parametrize("count", [150, 200, 500])
def test_classes_are_not_held_out_whole(tmp_path, count):
    """Images that were gathered class by class."""
    images = RNG.integers(0, 256, (200, 8, 8, 1), dtype="uint8")
    path = tmp_path / "pictures.npz"
    np.savez(path, x_train=images, y_train=np.arange(200) // 25)
    recipe = find("digits").replace(dataset="pictures", validation=count)
    with pytest.raises(ValueError, match=f", 6, 7. .*: validation={count}"):
        load_task(recipe, 0, path, Devices())


@pytest.mark.parametrize(
    "arguments",
    [
        [str(FOLDER)],
        ["digits", "--builder", "DMRNet", "--set", "depth=8"],
        [FOLDER.name, "--builder", "DMRNet", "--set", "depth=8"],
    ],
    ids=["folder", "dataset", "name"],
)
def test_published_network_has_the_error_of_its_card(arguments, capsys):
    before = (FOLDER / "result.json").read_bytes()
    evaluate.main(arguments)
    found = json.loads(capsys.readouterr().out)
    card = json.loads(before)
    assert found["error"] == pytest.approx(card["error"], abs=0.01)
    assert found["examples"] == 360
    assert (FOLDER / "result.json").read_bytes() == before


def test_published_network_of_real_images_has_the_error_of_its_card(capsys):
    import tensorflow_datasets as tfds

    if not tfds.builder("cifar10").is_prepared():
        pytest.skip("not on this machine, where TFDS looks (TFDS_DATA_DIR)")
    folder = FOLDER.with_name("dmrnet_14_cifar10_short")
    evaluate.main([str(folder)])
    found = json.loads(capsys.readouterr().out)
    card = ModelCard.load(folder / "README.md").data
    (said,) = (r for r in card.eval_results if r.metric_type == "error")
    assert found["error"] == pytest.approx(said.metric_value, abs=0.01)
    assert found["examples"] == 10_000


def test_a_data_set_of_other_classes_is_refused():
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    evaluation.check_classes(network, "letters", None)  # nobody knows
    evaluation.check_classes(network, "letters", ["a", "b", "c"])
    with pytest.raises(ValueError, match="the 3 .* letters, which has 2"):
        evaluation.check_classes(network, "letters", ["a", "b"])


def test_best_weights_of_a_run_are_no_result(run, capsys):
    folder, network = run
    network.save_weights(folder / "best.weights.h5")
    evaluate.main([str(folder / "best.weights.h5")])
    best = json.loads(capsys.readouterr().out)
    assert not (folder / "result.json").exists()
    evaluate.main([str(folder)])
    assert json.loads(capsys.readouterr().out)["nll"] == best["nll"]
    (folder / "model.weights.h5").unlink()
    with pytest.raises(SystemExit, match="complete; .*model.weights.h5 not"):
        evaluate.main([str(folder)])


def test_the_recipe_beside_a_file_says_what_it_is(run, capsys):
    folder, _ = run
    description = json.loads((folder / "recipe.json").read_text())
    description["test_split"] = "train"
    (folder / "recipe.json").write_text(json.dumps(description))
    file = str(folder / "model.weights.h5")
    evaluate.main([file])
    assert json.loads(capsys.readouterr().out)["examples"] == 1437
    for network in file, str(folder):
        with pytest.raises(SystemExit, match="Received: --builder VGG for "):
            evaluate.main([network, "--builder", "VGG"])


@pytest.mark.parametrize(
    "text", ["[]", "{}", "[" * 100_000, '{"builder": "list_weights"}']
)
def test_a_recipe_that_is_none_ends_in_a_line(run, text):
    folder, _ = run
    (folder / "recipe.json").write_text(text)
    with pytest.raises(SystemExit, match="evaluate.py: .*recipe.json should"):
        evaluate.main([str(folder)])


def test_a_run_named_as_a_data_set_does_not_stand_for_it(
    run, tmp_path, monkeypatch, capsys
):
    folder, _ = run
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(
        folder, elsewhere / "digits", ignore=shutil.ignore_patterns("else*")
    )
    monkeypatch.chdir(elsewhere)
    evaluate.main(["digits", "--builder=DMRNet", "--set=depth=8"])
    told = json.loads(capsys.readouterr().out)
    result = json.loads((FOLDER / "result.json").read_text())
    assert told["error"] == pytest.approx(result["error"])


def test_a_file_alone_does_not_say_how_to_normalize(run, capsys):
    folder, _ = run
    (folder / "recipe.json").unlink()
    file = str(folder / "model.weights.h5")
    with pytest.raises(SystemExit, match="recipe.json states.*Received"):
        evaluate.main([file, "--builder", "DMRNet", "--set", "depth=8"])
    evaluate.main(
        [file, "--builder=ResNet", "--set=depth=8", "--dataset=digits"]
    )
    assert json.loads(capsys.readouterr().out)["error"] < 100


def digits_network(activation="softmax"):
    return keras_resfam.DMRNet(
        depth=8, weights="digits", classifier_activation=activation
    )


@keras.saving.register_keras_serializable("tests")
class Divided(keras.layers.Layer):
    """A softmax that only its outputs show."""

    def call(self, x):
        return keras.ops.softmax(x)


IMAGE = keras.Input((8, 8, 1))
ENDS = {
    "dense": lambda: digits_network(),
    "nested": lambda: keras.Sequential([IMAGE, digits_network()]),
    "nested twice": lambda: keras.Sequential(
        [IMAGE, keras.Sequential([IMAGE, digits_network()])]
    ),
    "layer": lambda: keras.Sequential(
        [IMAGE, digits_network(None), keras.layers.Softmax()]
    ),
    "activation": lambda: keras.Sequential(
        [IMAGE, digits_network(None), keras.layers.Activation("softmax")]
    ),
    "nested layer": lambda: keras.Sequential(
        [
            IMAGE,
            keras.Sequential(
                [IMAGE, digits_network(None), keras.layers.Softmax()]
            ),
            keras.layers.Activation("linear", dtype="float32"),
        ]
    ),
    "logits": lambda: keras.Sequential([IMAGE, digits_network(None)]),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_model_that_keras_has_saved_is_measured(end, tmp_path, capsys):
    path = str(tmp_path / "mine.keras")
    ENDS[end]().save(path)
    evaluate.main([path, "--dataset", "digits"])
    found = json.loads(capsys.readouterr().out)
    card = json.loads((FOLDER / "result.json").read_text())
    assert found["error"] == pytest.approx(card["error"], abs=0.01)
    assert found["nll"] == pytest.approx(card["nll"], abs=1e-3)


@pytest.mark.parametrize("dataset", ["imagenet2012", "imagenet2012:5.1.0"])
def test_the_images_of_imagenet_have_many_sizes(dataset, tmp_path):
    image = keras.Input((224, 224, 3))
    answer = keras.layers.GlobalAveragePooling2D()(image)
    keras.Model(image, answer).save(tmp_path / "mine.keras")
    options = evaluate.parse_arguments(
        [str(tmp_path / "mine.keras"), "--dataset", dataset]
    )
    _, description = loading.load_network(options)
    assert description["image_size"] == 224
    assert description["test_split"] == "validation"


@pytest.mark.parametrize(
    "end, message",
    [
        (Divided(), "outputs are probabilities"),
        (keras.layers.Activation("sigmoid"), "sigmoid"),
        (keras.layers.Reshape((5, 2)), "classes.*5, 2"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(end, message, tmp_path):
    path = str(tmp_path / "mine.keras")
    keras.Sequential([IMAGE, digits_network(None), end]).save(path)
    with pytest.raises(SystemExit, match=message):
        evaluate.main([path, "--dataset", "digits"])


def test_a_model_that_cannot_be_measured(tmp_path):
    path = tmp_path / "mine.keras"
    path.write_bytes(b"x")
    with pytest.raises(SystemExit, match="`--dataset`.*mine.keras"):
        evaluate.main([str(path)])
    with pytest.raises(SystemExit, match="that Keras can load"):
        evaluate.main([str(path), "--dataset", "digits"])
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(SystemExit, match="of images of one size"):
        evaluate.main([str(path), "--dataset", "digits"])


def test_photographs_from_training_to_analysis(tmp_path, capsys):
    """A folder of images, through the commands."""
    photos, run = photographs.write(tmp_path / "photos"), tmp_path / "run"
    given = [f"--data-dir={photos}"]
    settings = ("arguments.depth=8", "weights=None", "dataset=shapes")
    train.main(
        [
            *("--recipe", "fine_tune", f"--run-dir={run}", *given),
            *("--epochs=2", "--batch-size=6", "--set=image_size=16"),
            *(f"--set={setting}" for setting in settings),
        ]
    )
    assert keras_resfam.class_names(str(run)) == ("blue", "red")
    capsys.readouterr()
    evaluate.main([str(run), *given])
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 8
    assert list(found["per_class"]) == ["blue", "red"]

    shutil.move(photos / "test" / "red", photos / "test" / "rot")
    shutil.move(photos / "train" / "red", photos / "train" / "rot")
    with pytest.raises(SystemExit, match="on: blue, red. Received: blue, rot"):
        evaluate.main([str(run), *given])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "Received: --builder None"),
        ([str(FOLDER), "--output", "no/x.json"], "--output no/x.json"),
        ([str(FOLDER), "--output", str(FOLDER)], "--output .*dmrnet_8_digits"),
        (
            [str(FOLDER), "--split=test[400:]"],
            "test.400:. of digits, with no",
        ),
        (["nowhere", "--builder", "VGG"], "Received: --builder VGG"),
        (["no_such_set", "--builder", "DMRNet"], "no_such_set"),
        (["cifar10", "--builder", "DMRNet", "--set", "depth"], "--set depth"),
        ([str(FOLDER), "--set", "depth=14"], "Received: --set depth=14"),
    ],
)
def test_bad_arguments_end_in_a_line(arguments, told):
    with pytest.raises(SystemExit, match=told):
        evaluate.main(arguments)
