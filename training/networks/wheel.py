"""The build step that puts weights into the wheel; pyproject.toml names it.

A wheel has the smallest networks of `weights/`, up to 40 MB in all, as
`keras_resfam/weights/<name>/`, with the files that are needed to load them.
Therefore `weights="cifar10"` works offline and without a clone.
"""

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py

LARGEST = 40_000_000  # bytes, of all networks in a wheel

# As keras_resfam.pretrained.files.NEEDED, which cannot be imported here:
# Keras is not installed where a wheel is built.
FILES = "config.json", "recipe.json", "fingerprint.json", "model.weights.h5"


def carried():
    """Returns the files of the networks in a wheel, as relative paths."""
    networks = [
        [path.with_name(name) for name in FILES]
        for path in Path("weights").glob("*/fingerprint.json")
    ]
    sizes = [sum(path.stat().st_size for path in files) for files in networks]
    room, chosen = LARGEST, []
    for size, files in sorted(zip(sizes, networks, strict=True)):
        room -= size
        if room >= 0:
            chosen += files
    return chosen


class BuildWithWeights(build_py):
    """Copies `weights/` into the package, but for editable installations."""

    def run(self):
        super().run()
        if self.editable_mode:  # there the clone has them
            return
        for source, target in self._targets():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def _targets(self):
        package = Path(self.build_lib, "keras_resfam")
        return [(source, package / source) for source in carried()]

    def get_outputs(self, include_bytecode=True):
        outputs = super().get_outputs(include_bytecode)
        return outputs + [str(target) for _, target in self._targets()]

    def get_source_files(self):
        """Returns the files of a source distribution, including the weights."""
        own = "training/networks/wheel.py"
        return [*super().get_source_files(), own, *map(str, carried())]
