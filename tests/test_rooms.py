"""No import leads up: the floors of the house, drawn from the source."""

import graphlib

import pytest

import imports

pytestmark = pytest.mark.backend_independent

# From the bottom. Rooms of one floor may import each other, as long as no
# circle of modules comes of it.
FLOORS = (
    {"_checks", "_files", "backends"},
    {"datasets", "initializers", "layers", "regularizers"},
    {"graphs"},
    {"models", "pretrained"},
    {"analysis", "compiling"},
    {""},  # keras_resfam itself
)
PACKAGE = imports.modules("keras_resfam")
TRAINING = imports.modules("training")


def floor(module):
    """The number of a module's floor."""
    room = (module.split(".") + [""])[1]
    (number,) = [n for n, rooms in enumerate(FLOORS) if room in rooms]
    return number


def test_every_module_has_a_floor():
    assert {floor(module) for module in PACKAGE} == set(range(len(FLOORS)))


def test_no_arrow_leads_up():
    up = [
        f"{importer} -> {imported}"
        for importer, imported in imports.arrows("keras_resfam", PACKAGE)
        if floor(importer) < floor(imported)
    ]
    assert not up


@pytest.mark.parametrize("package", ["keras_resfam", "training"])
def test_no_circle(package):
    known = imports.modules(package)
    graph = {}
    for importer, imported in imports.arrows(package, known):
        graph.setdefault(importer, set()).add(imported)
    # A circle is an error that names its modules.
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_the_package_does_not_import_training():
    assert not list(imports.arrows("keras_resfam", TRAINING))


def test_training_imports_the_package():
    """The drawing is not empty: its arrows are found."""
    assert ("training.run.network", "keras_resfam") in set(
        imports.arrows("training", PACKAGE)
    )
