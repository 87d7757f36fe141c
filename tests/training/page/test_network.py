"""A network in parts: by onnxruntime in Python, and on the page in Chromium.

Both have to give the errors of `lesion_study`.
"""

import dataclasses
import itertools
import pathlib
import shutil

import keras
import numpy as np
import pytest

import browser
from keras_resfam import DMRNet, OrthoPlainNet, ResNet, analysis
from keras_resfam.analysis.paths import count_paths

pytestmark = pytest.mark.skipif(
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


@dataclasses.dataclass
class Case:
    """A network, and what `lesion_study` says of it."""

    name: str
    folder: pathlib.Path  # of its parts
    record: dict  # as `write_network` returns it
    model: keras.Model
    images: np.ndarray
    labels: np.ndarray
    deletions: dict  # from the names of blocks or a branch to errors
    swaps: dict  # from the names of blocks, pair by pair, likewise


@pytest.fixture(scope="module", params=NETWORKS)
def case(request, tmp_path_factory):
    from training.page.network import write_network

    keras.utils.set_random_seed(0)
    model = NETWORKS[request.param]()
    shape = model.input_shape[1:]
    images = np.random.default_rng(0).integers(0, 256, (25, *shape))
    images = images.astype("float32")
    of_many_classes(model, images)
    labels = model.predict_on_batch(images).argmax(axis=1)
    records = analysis.lesion_study(
        model,
        (images, labels),
        max_deletions=5,
        max_swaps=3,
        max_repetitions=0,
        trials=1,
        branches=True,
        verbose=0,
    )
    deletions, swaps = {}, {}
    for row in records:
        blocks = tuple(row["blocks"].split())
        if row["study"] == "branch":
            blocks = blocks[1:]  # the block's name comes first
        found = swaps if row["study"] == "swaps" else deletions
        found[blocks] = row["error"]
    assert deletions[()] == 0
    assert len(deletions) > 10
    assert len(swaps) == 3
    assert max(swaps.values()) > 0
    assert max(deletions.values()) > 20
    branches = [row for row in records if row["study"] == "branch"]
    assert bool(branches) == (request.param == "DMRNet")
    folder = tmp_path_factory.mktemp("parts")
    record = write_network(model, folder)
    return Case(
        request.param, folder, record, model, images, labels, deletions, swaps
    )


def test_the_parts_make_the_errors_of_lesion_study(case):
    from walker import Walker, nonzero

    walker = Walker(case.record, case.folder)
    layouts = {blocks: walker.layout(blocks) for blocks in case.deletions}
    layouts |= {blocks: walker.layout(swaps=blocks) for blocks in case.swaps}
    expected = case.deletions | case.swaps
    for blocks, layout in layouts.items():
        answers = walker.predict(case.images, layout).argmax(axis=1)
        error = 100 * np.mean(answers != case.labels)
        assert error == pytest.approx(expected[blocks], abs=0.01), blocks

    if walker.record["residual"]:
        whole = walker.count_paths(walker.layout())
        assert nonzero(whole) == count_paths(case.model)
    if case.name == "ResNet":
        off = [walker.record["units"][k]["name"] for k in (1, 3, 8)]
        left = analysis.delete_blocks(case.model, off)
        paths = walker.count_paths(walker.layout(off))
        assert nonzero(paths) == count_paths(left)
        np.testing.assert_allclose(
            walker.predict(case.images, walker.layout(off)),
            left.predict_on_batch(case.images),
            atol=1e-4,
        )


def test_the_page_shows_the_errors_of_lesion_study(case, tmp_path, monkeypatch):
    """Ten sets of deletions and three swaps, by clicks and other ways."""
    from training.page import site

    def copy_parts(model, folder):
        shutil.copytree(case.folder, folder, dirs_exist_ok=True)
        return case.record

    browser.require()
    monkeypatch.setattr(site, "write_network", copy_parts)
    site.write_site(
        case.model,
        tmp_path,
        title=case.name,
        data=(case.images, case.labels),
    )
    with browser.served(tmp_path) as address, browser.opened() as page:
        page.goto(address)
        assert browser.error(page) == 0

        def boxes(name):
            """The boxes of a block, or of a branch."""
            return page.locator(f'.box[title="{name}"]')

        several = [x for x in case.deletions if len(x) > 1]
        single = [x for x in case.deletions if len(x) == 1]
        step = -(-len(single) // (10 - len(several)))
        chosen = several + single[::step] + single[-1:]
        for blocks in chosen:
            for name in blocks:
                boxes(name).first.click()
            error = browser.error(page)
            expected = case.deletions[blocks]
            assert error == pytest.approx(expected, abs=0.01), blocks
            page.click("#restore")
        ways = itertools.cycle([swap_by_button, swap_by_keys, swap_by_drag])
        for blocks, error in case.swaps.items():
            for a, b in zip(blocks[::2], blocks[1::2], strict=True):
                next(ways)(page, boxes(a).first, boxes(b).first)
            assert browser.error(page) == pytest.approx(error, abs=0.01), blocks
            page.click("#restore")
        assert browser.error(page) == 0


def swap_by_button(page, a, b):
    page.click("#swap")
    a.click()
    b.click()
    page.click("#swap")


def swap_by_keys(page, a, b):
    for box in (a, b):
        box.focus()
        page.keyboard.press("s")


def swap_by_drag(page, a, b):
    a.drag_to(b)


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
