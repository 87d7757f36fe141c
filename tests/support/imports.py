"""The imports of the project's own modules, read from their source."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[2]


def modules(package):
    """Maps the names of a package's modules to their files."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


def arrows(package, known):
    """Yields `(importer, imported)` for imports of modules in `known`.

    Those within functions count as well.

    Args:
        package: str. The folder whose modules are read.
        known: collection of module names that arrows may lead to.
    """
    for name, path in modules(package).items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path} has a relative import"
                found = [
                    inner
                    if (inner := f"{node.module}.{alias.name}") in known
                    else node.module
                    for alias in node.names
                ]
            else:
                continue
            for imported in found:
                if imported in known and imported != name:
                    yield name, imported
