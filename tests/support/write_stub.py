"""Writes keras_resfam/__init__.pyi, which tells editors what builders take.

A builder's signature is made at run time, of its architecture's arguments and
of those that all builders share, so that no editor and no type checker can
read it from the source.

    python tests/support/write_stub.py
"""

import ast
import inspect
import pathlib
import subprocess

PACKAGE = pathlib.Path(__file__).parents[2] / "keras_resfam"
STUB = PACKAGE / "__init__.pyi"

HEAD = """\
# Written by tests/support/write_stub.py from the builders' signatures.
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import keras

"""


def stub():
    """The text of the stub."""
    from keras_resfam.models import families

    source = ast.parse((PACKAGE / "__init__.py").read_text())
    builders = families.names()
    lines = []
    for node in source.body:
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            # "X as X" is how a stub says that X is offered.
            lines += [
                f"from {node.module} import {name} as {name}"
                for name in names
                if name not in builders
            ]
    lines.append("\n__version__: str\n__all__: list[str]\n")
    lines += [_declaration(families.get(name)) for name in builders]
    return HEAD + "\n".join(lines) + "\n"


def _declaration(builder):
    parameters = [
        f"    {p.name}: {_annotation(builder, p)} = {p.default!r},"
        for p in inspect.signature(builder).parameters.values()
    ]
    return "\n".join(
        [f"def {builder.__name__}(", *parameters, ") -> keras.Model: ..."]
    )


def _annotation(builder, parameter):
    if parameter.annotation is parameter.empty:
        raise TypeError(
            f"The argument `{parameter.name}` of {builder.__name__} should "
            "have a type hint."
        )
    text = inspect.formatannotation(parameter.annotation)
    return text.replace("collections.abc.", "").replace("os.", "")


if __name__ == "__main__":
    STUB.write_text(stub())
    subprocess.run(["ruff", "format", str(STUB)], check=True)
