"""The page of the digits' DMRNet in Chromium, with names like HTML."""

import json

import keras
import numpy as np
import pytest

import browser
from keras_resfam import DMRNet, analysis
from keras_resfam.analysis.paths import count_paths
from keras_resfam.pretrained import sources
from training import demo
from training.images import reading
from training.page import site as sites
from training.studies.records import write_columns

FOLDER = sources.CHECKOUT / "weights" / "dmrnet_8_digits"
IMAGES = 200
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="PyTorch writes the networks"
)


@pytest.fixture(scope="module")
def model():
    return DMRNet(depth=8, weights=str(FOLDER))


@pytest.fixture(scope="module")
def images():
    return reading.load("digits", "test")[0][:IMAGES]


@pytest.fixture(scope="module")
def study(model, tmp_path_factory):
    """A folder as of analyse.py, without the gradients; and its records."""
    folder = tmp_path_factory.mktemp("study")
    data = tuple(x[:IMAGES] for x in reading.load("digits", "test"))
    records = analysis.lesion_study(
        model,
        data,
        max_deletions=2,
        max_swaps=0,
        max_repetitions=0,
        trials=2,
        branches=True,
        output=folder / "lesions.csv",
        verbose=0,
    )
    write_columns(folder / "path_lengths.csv", analysis.path_lengths(model))
    return folder, records


@pytest.fixture(scope="module")
def site(study, tmp_path_factory):
    browser.require()
    folder = tmp_path_factory.mktemp("demo") / "site"
    options = ["--examples", str(IMAGES), "--study", str(study[0])]
    demo.main([str(FOLDER), "--out", str(folder), *options])
    change(folder / sites.NETWORK, disguise)
    change(folder / "study.json", disguise_charts)
    return folder


def change(path, function):
    """Changes a file of JSON in its place."""
    record = json.loads(path.read_text())
    function(record)
    path.write_text(json.dumps(record))


def disguise(record):
    """Lets all names look like HTML."""
    record["title"] = markup(record["title"])
    record["about"] = markup(record["about"])
    record["classes"] = [markup(name) for name in record["classes"]]
    for unit in record["units"]:
        for named in (unit, *unit["branches"]):
            named["name"] = markup(named["name"])


def disguise_charts(charts):
    for chart in charts:
        chart["title"] = markup(chart["title"])
        for series in chart["series"]:
            series["name"] = markup(series["name"])
            series["points"] = [
                [x, y, *map(markup, text)] for x, y, *text in series["points"]
            ]


def markup(text):
    return f"<b onclick='x'>{text}</b><img src=x onerror='window.taken=1'>"


@pytest.fixture(scope="module")
def chromium():
    browser.require()
    with browser.launched() as found:
        yield found


@pytest.fixture(scope="module")
def visit(site, chromium):
    """The page, its address, and what went wrong or was asked for."""
    requests, failures = [], []
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    with browser.served(site) as address:
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: failures.append(error))
        page.goto(address)
        browser.ready(page)
        yield page, address, requests, failures


@pytest.fixture
def page(visit):
    page, _, _, failures = visit
    page.click("#restore")
    browser.ready(page)
    yield page
    assert not failures


@pytest.fixture(scope="module")
def errors(study):
    """In percent, by the name of a block or branch that is deleted."""
    _, records = study
    single = [x for x in records if x["study"] != "deletions"]
    return {row["blocks"].split(" ")[-1]: row["error"] for row in single}


def test_boxes_of_blocks_and_branches(page, model, errors):
    assert browser.error(page) == pytest.approx(errors[""], abs=0.01)
    assert page.inner_text("#paths") == str(sum(count_paths(model).values()))
    boxes = page.locator(".box")
    assert boxes.count() == 9  # of three blocks, and of two branches of each
    for box in boxes.all():
        box.click()
        assert box.get_attribute("aria-pressed") == "false"
        assert box.get_attribute("aria-label").endswith(": deleted")
        (name,) = (x for x in errors if markup(x) == box.get_attribute("title"))
        assert browser.error(page) == pytest.approx(errors[name], abs=0.01)
        page.click("#restore")


def test_the_address_and_the_keys(page, errors):
    browser.go_to(page, "off=2")
    error = pytest.approx(errors["stage2_block1"], abs=0.01)
    assert browser.error(page) == error
    assert page.inner_text("#paths") == "36"  # of 54
    page.locator(".box").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#off=1.1,2"
    page.keyboard.press("Enter")
    page.reload()
    assert browser.error(page) == error
    assert page.evaluate("location.hash") == "#off=2"


def test_buttons(page):
    page.click("#worst")
    assert page.evaluate("location.hash") == "#off=1"
    page.click("#random")  # five are more than there are
    assert page.evaluate("location.hash") == "#off=1,2,3"
    # No branch is left, but each mean of the two streams doubles the ways.
    assert page.inner_text("#paths") == "16"


def test_what_the_readme_says_of_its_picture(page):
    readme = (sources.CHECKOUT / "README.md").read_text()
    text = " ".join(readme.split("![")[1].split("](")[0].split())
    assert f"--state {browser.PICTURED}" in browser.__doc__
    browser.go_to(page, browser.PICTURED)
    error = f"from 0 to {browser.error(page):.1f} %"
    paths = page.inner_text("#paths"), page.inner_text("#paths-note")
    assert error in text
    assert " ".join(paths) in text


def test_a_dropped_image(page, model, images, tmp_path):
    drop(page, images[3], tmp_path / "digit.png")
    compare(page, model, images[3])


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
    page.wait_for_selector("body[data-state=busy]", state="attached")


def compare(page, model, image):
    """The page's probabilities of the visitor's image are the model's."""
    browser.ready(page)
    rows = page.locator("#own-classes li").all_inner_texts()
    expected = model.predict_on_batch(image[None].astype("float32"))[0]
    shown = {}
    for row in rows:
        name, share = row.rsplit("\n", 1)
        shown[name.strip()] = float(share.removesuffix(" %")) / 100
    assert len(shown) == 5
    best = sorted(range(10), key=lambda k: -expected[k])[:5]
    for k in best:
        assert shown[markup(str(k))] == pytest.approx(expected[k], abs=1e-4)


def test_a_drawn_digit(page, model):
    """It is as tall as the digits of the data set, and in the middle."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.2 * box["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 0.5 * box["height"], steps=5)
    page.mouse.up()
    image = np.array(
        page.evaluate(
            """() => {
                const canvas = document.getElementById("own-image");
                const context = canvas.getContext("2d");
                return [...context.getImageData(0, 0, 8, 8).data];
            }"""
        )
    ).reshape(8, 8, 4)[..., :1]
    assert (image[:, 3:5] > 50).all()
    assert not image[:, [0, 1, 6, 7]].any()
    compare(page, model, image)
    page.locator(".box").first.click()
    left = analysis.delete_blocks(model, ["stage1_block1"])
    compare(page, left, image)


def test_the_charts_of_the_study(page, study, errors):
    """Those that are measured; a click on a deleted block deletes it."""
    _, records = study
    titles = page.locator("#charts figcaption").all_inner_texts()
    names = (
        "Each block deleted",
        "Several random blocks deleted",
        "How long the paths are",
    )
    assert titles == [markup(name) for name in names]
    each, several, _ = page.locator("#charts figure").all()
    each.locator("summary").click()
    cells = each.locator("tbody tr").all_inner_texts()
    blocks = [row for row in records if row["study"] == "deletion"]
    for text, row in zip(cells, blocks, strict=True):
        name, error, _ = text.split("\t")
        assert name == markup(row["blocks"])
        assert float(error) == pytest.approx(row["error"], rel=1e-3)
    assert several.locator(".dots circle").count() == 4

    point = each.locator(".stems circle").nth(1)
    point.scroll_into_view_if_needed()
    point.hover()
    name = markup("stage2_block1")
    assert each.locator(".reading").inner_text().startswith(name)
    point.click()
    assert page.evaluate("location.hash") == "#off=2"
    error = pytest.approx(errors["stage2_block1"], abs=0.01)
    assert browser.error(page) == error


def test_names_are_no_html_and_all_is_from_one_host(visit, page):
    _, address, requests, _ = visit
    page.locator(".box").first.click()
    browser.ready(page)
    assert page.inner_text("h1") == markup("dmrnet_8_digits")
    assert page.locator("b, img").count() == 0
    assert page.evaluate("window.taken") is None
    assert requests
    assert all(url.startswith((address, "data:,")) for url in requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_telephone(page, scheme):
    """Nothing sticks out, and letters can be read on their ground."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for box in page.locator(".box").all():
        assert box.bounding_box()["height"] >= 24
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(18, 21, 27)") == (scheme == "dark")
    page.set_viewport_size({"width": 1200, "height": 900})


def test_without_a_gpu_the_processor_does_it(site, chromium, errors):
    with browser.served(site) as address, chromium.new_page() as page:
        page.goto(f"{address}?run=webgpu")
        assert browser.error(page) == pytest.approx(errors[""], abs=0.01)
        assert page.inner_text("#runtime").startswith("WebAssembly, ")


def test_threads_where_the_page_is_isolated(site, chromium, errors):
    cores = (
        "Object.defineProperty(navigator, 'hardwareConcurrency', {value: 8})"
    )
    served = browser.served(site, browser.ISOLATED)
    with served as address, chromium.new_page() as page:
        page.add_init_script(cores)
        page.goto(f"{address}#off=2")
        error = pytest.approx(errors["stage2_block1"], abs=0.01)
        assert browser.error(page) == error
        # Of four workers each has two.
        assert page.inner_text("#runtime").startswith("WebAssembly, 8 threads")


@pytest.mark.large
def test_on_a_gpu(site, chromium, errors):
    """One in software, which needs minutes to compile its programs."""
    gpu = browser.launch(chromium.browser_type, *browser.SOFTWARE_GPU)
    with browser.served(site) as address, gpu.new_page() as page:
        page.goto(f"{address}?run=webgpu")
        assert browser.error(page) == pytest.approx(errors[""], abs=0.01)
        assert page.inner_text("#runtime").startswith("WebGPU")
        for state, name in {"2": "stage2_block1", "3": "stage3_block1"}.items():
            browser.go_to(page, f"off={state}")
            assert browser.error(page) == pytest.approx(errors[name], abs=0.01)
    gpu.close()


def test_other_numbers_than_in_keras_are_a_failure(site, chromium):
    def other(route):
        record = json.loads((site / sites.NETWORK).read_text())
        record["probe"][0] += 0.01
        route.fulfill(json=record)

    with browser.served(site) as address, chromium.new_page() as page:
        page.route("**/network.json", other)
        page.goto(address)
        with pytest.raises(AssertionError, match="other numbers than in Keras"):
            browser.ready(page)
