"""No import leads up: the floors of the house, drawn from the source."""

import ast
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
    {"analysis", "compiling", "photographs"},
    {""},  # keras_resfam itself
)
ROOT = imports.ROOT
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


def test_what_only_one_module_uses_has_an_underscore():
    """Uses in the tests count: they too read a name from outside.

    Classes that Keras registers by name count as used, since saved files have
    their names.
    """
    files = [
        path
        for folder in ("keras_resfam", "training", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    trees = {path: ast.parse(path.read_text()) for path in files}
    used = {path: set(names_of_others(tree)) for path, tree in trees.items()}
    lonely = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "keras_resfam").rglob("*.py")
        for name in top_level_names(trees[path])
        if not name.startswith("_")
        and not any(name in used[other] for other in files if other != path)
    ]
    assert not lonely


def names_of_others(tree):
    """The names that a module imports, or looks up as attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield node.attr


def top_level_names(tree):
    """The functions, classes and variables that a module defines."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            decorators = map(ast.unparse, node.decorator_list)
            if not any("register_keras" in text for text in decorators):
                yield node.name
        elif isinstance(node, ast.Assign):
            names = [x for x in node.targets if isinstance(x, ast.Name)]
            yield from (name.id for name in names)
