"""The studies of one network: lesions, path lengths, gradients by length."""

import pathlib

from keras_resfam import analysis
from keras_resfam.models import families
from training.studies.pages import write_pages
from training.studies.records import read_or_compute, read_rows, write_columns


def run_studies(model, description, images, labels, options):
    """Runs the studies of a network, and writes all files."""
    out = options.out
    of_gradients = {
        "examples": len(images[: options.gradient_examples]),
        "samples": options.gradient_samples,
        "seed": options.seed,
    }
    read_rows(out / "gradients.csv", of_gradients)  # before hours of lesions
    records = analysis.lesion_study(
        model,
        (images, labels),
        max_deletions=options.deletions,
        max_swaps=options.swaps,
        max_repetitions=options.repetitions,
        trials=options.trials,
        branches=True,
        batch_size=options.batch_size,
        seed=options.seed,
        output=out / "lesions.csv",
        name=name_of(options.network, description),
    )
    lengths = gradients = None
    if analysis.residual_blocks(model):
        lengths = analysis.path_lengths(model)
        write_columns(out / "path_lengths.csv", lengths)
        gradients = read_or_compute(
            out / "gradients.csv",
            {
                "weights": records[0]["weights"],
                "data": records[0]["data"],
                **of_gradients,
            },
            lambda: analysis.gradient_by_path_length(
                model,
                images[: options.gradient_examples],
                labels[: options.gradient_examples],
                samples=options.gradient_samples,
                batch_size=options.batch_size,
                seed=options.seed,
            ),
        )
    write_pages(model, description, records, lengths, gradients, out)


def name_of(network, description):
    """Returns a network's name: its folder's, with a file's in it."""
    path = pathlib.Path(network).resolve()
    if path.is_dir():
        return path.name
    if path.is_file():
        stem = path.name.removesuffix(".weights.h5").removesuffix(".keras")
        return f"{path.parent.name}/{stem}"
    return families.call(
        description["builder"], description["arguments"], weights=network
    )
