"""The page: its parts in onnxruntime, and itself in a browser."""

import importlib.util
import io
import json
import os
import tarfile

import keras
import numpy as np
import pytest

import browser
from keras_resfam import DMRNet, OrthoPlainNet, ResNet, analysis
from keras_resfam.analysis.paths import count_paths
from keras_resfam.pretrained import sources
from training import demo
from training.images import reading
from training.page import charts, runtime
from training.page import site as sites

FOLDER = sources.CHECKOUT / "weights" / "dmrnet_8_digits"
on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="PyTorch writes the networks"
)


def small(builder, **arguments):
    return builder(
        **arguments,
        input_shape=(8, 8, 1),
        include_preprocessing="digits",
        classifier_activation=None,
    )


NETWORKS = {
    "ResNet": lambda: small(ResNet, depth=20, preactivation=True),
    "DMRNet": lambda: small(DMRNet, depth=20),
    "OrthoPlainNet": lambda: small(OrthoPlainNet, depth=14),
    "ResNet50V2": lambda: keras.applications.ResNet50V2(
        weights=None, input_shape=(32, 32, 3), classes=10
    ),
}


def of_many_classes(model, images):
    """Lets an untrained network give all answers alike often."""
    *_, last = model.layers
    activation, last.activation = last.activation, keras.activations.linear
    logits = model.predict_on_batch(images)
    last.activation = activation
    kernel, bias = last.get_weights()
    scale = 1 / logits.std(axis=0)
    last.set_weights([kernel * scale, (bias - logits.mean(axis=0)) * scale])


@on_torch
@pytest.mark.parametrize("name", NETWORKS)
def test_the_parts_make_the_errors_of_lesion_study(name, tmp_path):
    from training.page.network import write_network
    from walker import Walker, nonzero

    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    shape = model.input_shape[1:]
    images = np.random.default_rng(0).integers(0, 256, (25, *shape))
    images = images.astype("float32")
    of_many_classes(model, images)
    labels = model.predict_on_batch(images).argmax(axis=1)
    walker = Walker(write_network(model, tmp_path), tmp_path)

    records = analysis.lesion_study(
        model,
        (images, labels),
        max_deletions=5,
        max_swaps=3,
        max_repetitions=0,
        trials=2,
        branches=True,
        verbose=0,
    )
    studies = {}
    for row in records:
        blocks = row["blocks"].split()
        if row["study"] == "swaps":
            layout = walker.layout(swaps=blocks)
        else:
            # Of a branch, the block's name comes first.
            off = blocks[1:] if row["study"] == "branch" else blocks
            layout = walker.layout(off)
        answers = walker.predict(images, layout).argmax(axis=1)
        error = 100 * np.mean(answers != labels)
        assert error == pytest.approx(row["error"], abs=0.01), row
        studies.setdefault(row["study"], []).append(error)
    assert studies["intact"] == [0]
    assert len(studies["deletions"]) == 10
    assert len(studies["swaps"]) == 6
    assert ("branch" in studies) == (name == "DMRNet")
    assert max(studies["deletions"]) > 20

    if walker.record["residual"]:
        whole = walker.count_paths(walker.layout())
        assert nonzero(whole) == count_paths(model)
    if name == "ResNet":
        off = [walker.record["units"][k]["name"] for k in (1, 3, 8)]
        left = analysis.delete_blocks(model, off)
        paths = walker.count_paths(walker.layout(off))
        assert nonzero(paths) == count_paths(left)
        np.testing.assert_allclose(
            walker.predict(images, walker.layout(off)),
            left.predict_on_batch(images),
            atol=1e-4,
        )


@on_torch
def test_what_a_deleted_branch_gives_does_not_matter(tmp_path):
    from training.page.network import write_network
    from walker import Walker

    model = small(DMRNet, depth=8)
    kernel = model.get_layer("stage1_block1_branch1_conv1").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    walker = Walker(write_network(model, tmp_path), tmp_path)
    images = np.ones((2, 8, 8, 1), "float32")
    off = ["stage1_block1_branch1"]
    outputs = walker.predict(images, walker.layout(off))
    left = analysis.delete_blocks(model, off).predict_on_batch(images)
    np.testing.assert_allclose(outputs, left, atol=1e-5)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page of the digits, with names that look like HTML."""
    if browser.CHROMIUM is None:
        pytest.skip("no chromium")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("no playwright")
    folder = tmp_path_factory.mktemp("demo") / "site"
    demo.main([str(FOLDER), "--out", str(folder)])
    path = folder / sites.NETWORK
    record = json.loads(path.read_text())
    record["title"] = "<b>title</b>"
    record["classes"] = [f"<b>{k}</b>" for k in range(10)]
    path.write_text(json.dumps(record))
    return folder


@on_torch
def test_in_a_browser(site, tmp_path):
    model = DMRNet(depth=8, weights=str(FOLDER))
    images, labels = (x[:200] for x in reading.load("digits", "test"))
    records = analysis.lesion_study(
        model,
        (images, labels),
        max_deletions=0,
        max_swaps=0,
        max_repetitions=0,
        branches=True,
        verbose=0,
    )
    errors = {row["blocks"].split(" ")[-1]: row["error"] for row in records}
    requests, failures = [], []
    size = {"width": 1200, "height": 900}
    with browser.served(site) as address, browser.opened(viewport=size) as page:
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: failures.append(error))

        def shown():
            browser.ready(page)
            return float(page.inner_text("#error").removesuffix(" %"))

        page.goto(address)
        assert shown() == pytest.approx(errors[""], abs=0.01)
        assert page.inner_text("#paths") == str(
            sum(count_paths(model).values())
        )

        # Of three blocks each has a box, and one for each of its branches.
        boxes = page.locator(".box")
        assert boxes.count() == 9
        for k in range(9):
            boxes.nth(k).click()
            name = boxes.nth(k).get_attribute("title")
            assert boxes.nth(k).get_attribute("aria-pressed") == "false"
            assert shown() == pytest.approx(errors[name], abs=0.01), name
            page.click("#restore")
        page.goto(f"{address}#off=2")
        assert shown() == pytest.approx(errors["stage2_block1"], abs=0.01)
        assert page.inner_text("#paths") == "36"  # of 54
        page.keyboard.press("Tab")
        boxes.first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert page.evaluate("location.hash") == "#off=1.1,2"
        page.click("#restore")
        assert shown() == pytest.approx(errors[""], abs=0.01)

        drop(page, images[3], tmp_path / "digit.png")
        page.wait_for_selector("#own-classes li")
        rows = page.locator("#own-classes li").all_inner_texts()
        expected = model.predict(images[3:4].astype("float32"), verbose=0)[0]
        for row in rows:
            name, share = row.split("\n")
            k = int(name.removeprefix("<b>").removesuffix("</b>"))
            share = float(share.removesuffix(" %")) / 100
            assert share == pytest.approx(expected[k], abs=1e-4)

        assert page.inner_text("h1") == "<b>title</b>"
        assert page.locator("b").count() == 0
    assert not failures
    assert requests and all(url.startswith(address) for url in requests)


def drop(page, image, path):
    """Drops an image onto the page, as a file."""
    keras.utils.save_img(path, image, scale=False)
    page.evaluate(
        """bytes => {
            const parts = [new Uint8Array(bytes)];
            const file = new File(parts, "digit.png", {type: "image/png"});
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(file);
            const options = {dataTransfer, bubbles: true, cancelable: true};
            document.body.dispatchEvent(new DragEvent("drop", options));
        }""",
        list(path.read_bytes()),
    )


def test_charts_of_what_is_measured():
    def row(study, count, trial, error, blocks="a", tau=1.0):
        keys = ("study", "count", "trial", "error", "blocks", "kendall_tau")
        values = (study, count, trial, error, blocks, tau)
        return dict(zip(keys, values, strict=True))

    records = [
        row("deletion", 1, 0, 10.0, "a"),
        row("deletion", 1, 1, 30.0, "b"),
        row("deletions", 1, 0, 10.0),
        row("deletions", 1, 1, 20.0),
        row("deletions", 1, 2, 60.0),
        row("deletions", 2, 0, 40.0),
    ]
    single, several = charts.charts(records, None, None, published=True)
    (stems,) = single["series"]
    assert stems["points"] == [[1, 10.0, "a"], [2, 30.0, "b"]]
    dots, median, theirs = several["series"]
    assert len(dots["points"]) == 4
    assert median["points"] == [[1, 20.0], [2, 40.0]]
    assert theirs["points"][0] == [1, 6.5]
    _, alone = charts.charts(records, None, None, published=False)
    assert [series["kind"] for series in alone["series"]] == ["dots", "line"]


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm that gives a package of two bytes a file."""
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name in runtime.FILES:
            info = tarfile.TarInfo(f"package/dist/{name}")
            info.size = 2
            archive.addfile(info, io.BytesIO(b"ab"))
    commands = tmp_path / "bin"
    commands.mkdir()
    npm = commands / "npm"
    npm.write_text(f"#!/bin/sh\ncp {package} given.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "INTEGRITY", runtime.integrity(package))
    return npm


def test_the_runtime_is_brought_once(npm, tmp_path):
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        runtime.write_runtime(folder)
        assert {x.name for x in folder.iterdir()} == set(runtime.FILES)
        npm.unlink(missing_ok=True)
    (file,) = runtime.cache().iterdir()
    file.write_bytes(b"spoilt")
    npm.write_text("#!/bin/sh\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(ValueError, match="npm pack"):
        runtime.write_runtime(folder)


def test_another_runtime_is_refused(npm, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "INTEGRITY", "sha512-another")
    with pytest.raises(ValueError, match="sha512-another"):
        runtime.write_runtime(tmp_path)
    assert not list(runtime.cache().iterdir())


def test_without_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="install Node.js"):
        runtime.package()


def test_another_backend_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(SystemExit, match="KERAS_BACKEND=jax"):
        demo.main([str(FOLDER), "--out", str(tmp_path / "site")])
    assert not list(tmp_path.iterdir())


@on_torch
def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="--out"):
        demo.main([str(FOLDER), "--out", str(tmp_path)])
    assert [x.name for x in tmp_path.iterdir()] == ["thesis.tex"]


@on_torch
def test_nothing_is_left_of_a_page_that_fails(tmp_path, monkeypatch):
    def fail(folder):
        raise ValueError("no runtime")

    monkeypatch.setattr(runtime, "write_runtime", fail)
    with pytest.raises(SystemExit, match="no runtime"):
        demo.main([str(FOLDER), "--out", str(tmp_path / "site")])
    assert not list(tmp_path.iterdir())
