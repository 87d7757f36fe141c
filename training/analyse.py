"""Looks inside a trained network: lesions, path lengths, gradients by length.

    python training/analyse.py weights/<name> --out analysis/<name>

writes lesions.csv, path_lengths.csv, gradients.csv, the pictures as SVG, and
index.html, which shows all of it. A run that was stopped goes on where it was.

    python training/analyse.py untrained --builder ResNet --set depth=110 \\
        --benchmark

prints what all single deletions cost, and nothing else; what the weights and
the images are does not matter there.
"""

import csv
import importlib.util
import pathlib
import sys
import time

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training import evaluate
from training.startup import command_line


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    add = parser.add_argument

    def count(name, default, text):
        text = f"{text} (default: {default})"
        add(name, type=command_line.positive, default=default, help=text)

    def most(name, default, text):
        text = f"{text} (default: {default}; 0: none)"
        add(name, type=int, default=default, help=text)

    evaluate.add_network(add)
    add("--out", type=pathlib.Path, help="the folder to write to")
    add("--data-dir", metavar="PATH", help="as for train.py")
    add("--split", help="of the data set (default: its test split)")
    add(
        "--examples",
        type=command_line.positive,
        help="the first so many images (default: all)",
    )
    count(
        "--gradient-examples", 100, "images whose gradients are split by length"
    )
    count("--gradient-samples", 10, "draws of paths for each of those images")
    most("--deletions", 20, "delete 1, 2, ... so many random blocks at once")
    most("--swaps", 10, "swap 1, 2, ... so many random pairs of blocks")
    most("--repetitions", 10, "run 1, 2, ... so many random blocks twice")
    count("--trials", 10, "random trials of each such number")
    count("--batch-size", 100, "images at a time")
    add("--seed", type=int, default=0)
    command_line.add_backend(add)
    add("--benchmark", action="store_true", help="print costs and stop")
    options = parser.parse_args(arguments)
    if not options.benchmark and options.out is None:
        parser.error("--out is required (or --benchmark)")
    if options.out is not None and options.out.is_file():
        parser.error(f"--out should be a folder. Received: --out {options.out}")
    return options


def main(arguments=None):
    options = parse_arguments(arguments)
    command_line.choose_backend(options.backend)
    if not (options.benchmark or importlib.util.find_spec("matplotlib")):
        sys.exit(
            "analyse.py: the pictures are drawn by matplotlib, which is not "
            'installed: pip install -e ".[plots]"'
        )
    with command_line.in_a_line("analyse.py"):
        if options.benchmark:
            benchmark(network_to_time(options), options.batch_size)
            return
        model, recipe = evaluate.load_network(options)
        dataset, data_dir = recipe["dataset"], options.data_dir
        split = options.split or evaluate.own_split(recipe, dataset, data_dir)
        batches, _ = evaluate.load_data(dataset, split, recipe, data_dir)
        images, labels = evaluate.first(batches, options.examples)
        options.out.mkdir(parents=True, exist_ok=True)
        analyse(model, recipe, images, labels, options)
    print(f"Written: {options.out / 'index.html'}")


def analyse(model, recipe, images, labels, options):
    """Runs the studies of a network and writes all files."""
    from keras_resfam import analysis

    out = options.out
    of_gradients = {
        "examples": len(images[: options.gradient_examples]),
        "samples": options.gradient_samples,
        "seed": options.seed,
    }
    rows_of(out / "gradients.csv", of_gradients)  # before hours of lesions
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
        name=name_of(options.network, recipe),
    )
    lengths = gradients = None
    if analysis.residual_blocks(model):
        lengths = analysis.path_lengths(model)
        write_columns(out / "path_lengths.csv", lengths)
        gradients = kept(
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
    write_pages(model, recipe, records, lengths, gradients, out)


def name_of(network, recipe):
    """What to call a network: its folder's name, with that of a file in it."""
    path = pathlib.Path(network).resolve()
    if path.is_dir():
        return path.name
    if path.is_file():
        stem = path.name.removesuffix(".weights.h5")
        return f"{path.parent.name}/{stem}"
    from keras_resfam.models import families

    return families.call(
        recipe["builder"], recipe["arguments"], weights=network
    )


def kept(path, common, measure):
    """What a file holds, or else what is measured, and written there.

    Args:
        path: Path of a CSV file.
        common: Dict. What the measurement is of: it stands in every row, and
            a file of another is refused.
        measure: Callable that returns a dict of arrays.
    """
    import numpy as np

    rows = rows_of(path, common)
    if not rows:
        columns = measure()
        count = len(next(iter(columns.values())))
        write_columns(
            path, columns | {k: np.repeat(v, count) for k, v in common.items()}
        )
        rows = rows_of(path, common)
    return {
        name: np.array([float(row[name]) for row in rows])
        for name in rows[0]
        if name not in common
    }


def rows_of(path, common):
    """The rows of a CSV file, if there is one; of another it is refused."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:  # as a power cut may leave it
        return []
    found = {name: rows[0].get(name) for name in common}
    if found != {name: str(value) for name, value in common.items()}:
        raise ValueError(
            f"{path} should be of {common}: remove it, or give "
            f"another `--out`. Received: {found}"
        )
    return rows


def write_columns(path, columns):
    """Writes a dict of arrays as a table, whole or not at all."""
    from training.run import (
        reports,  # with it comes Keras, whose backend is chosen by now
    )

    values = zip(*(x.tolist() for x in columns.values()), strict=True)
    reports.write_csv(
        path, [dict(zip(columns, row, strict=True)) for row in values]
    )


def write_pages(model, recipe, records, lengths, gradients, out):
    """Writes the pictures, and the page that shows them."""
    from keras_resfam.analysis.published import NETWORK
    from training.page import html

    # The authors' numbers are of a residual network.
    published = recipe["dataset"] == "cifar10" and lengths is not None
    name = records[0]["network"]
    figures = pictures(records, lengths, gradients, name, published)
    parts = [
        html.table(
            "Top-1 error in percent",
            ["", name, NETWORK if published else ""],
            html.lesion_rows(records, published),
        )
    ]
    if gradients:
        parts.append(path_table(lengths, gradients, published))
    for stem, (figure, caption) in figures.items():
        path = out / f"{stem}.svg"
        figure.savefig(path)
        parts.append(html.picture(path.read_bytes(), caption))
    lead = (
        f"{recipe['builder']} with {recipe['arguments']}: "
        f"{model.count_params():,} parameters, "
        f"{records[0]['examples']:,} images of {recipe['dataset']}."
    )
    text = html.page(name, lead, parts)
    (out / "index.html").write_text(text, encoding="utf-8")


def path_table(lengths, gradients, published):
    from keras_resfam.analysis import effective_lengths
    from keras_resfam.analysis.published import EFFECTIVE_LENGTHS, MEAN_LENGTH
    from training.page import html

    mean = float((lengths["length"] * lengths["probability"]).sum())
    first, last = effective_lengths(gradients)
    shortest, longest = EFFECTIVE_LENGTHS
    rows = [
        ("mean length", mean, MEAN_LENGTH if published else None),
        (
            "95 % of the gradient",
            f"{first} to {last}",
            f"{shortest} to {longest} (almost all)" if published else None,
        ),
    ]
    return html.table("Paths, in blocks", ["", "measured", "Veit et al."], rows)


def pictures(records, lengths, gradients, name, published):
    """All figures by name, with their captions."""
    from keras_resfam.analysis import pictures as draw

    figures = {
        "deletion": (draw.plot_deletion(records), "Each block deleted"),
        "deletions": (
            draw.plot_deletions(records, published),
            "Several random blocks deleted",
        ),
        "swaps": (
            draw.plot_swaps(records, published),
            "Blocks in another order",
        ),
        "repetitions": (
            draw.plot_repetitions(records, published),
            "Several random blocks run twice",
        ),
    }
    if lengths:
        figures |= {
            "path_lengths": (
                draw.plot_path_lengths(lengths, name),
                "How long the paths are",
            ),
            "gradients": (
                draw.plot_gradients(gradients, name),
                "Gradient that arrives through paths of one length",
            ),
            "contributions": (
                draw.plot_contributions(gradients, name, published),
                "Share of all gradient that paths of one length carry",
            ),
        }
    return figures


def network_to_time(options):
    """The network that is named, or an untrained one."""
    if options.network != "untrained":
        return evaluate.load_network(options)[0]
    builder = evaluate.find_builder(options.builder, options.network)
    return builder(**evaluate.builder_arguments(options))


def benchmark(model, examples):
    """Prints what all single deletions cost, reused and naively."""
    import keras
    import numpy as np

    from keras_resfam.analysis.execution import BlockRunner
    from keras_resfam.analysis.plain import chain_of
    from keras_resfam.analysis.surgery import deletion

    chain = chain_of(model)
    runner = BlockRunner(chain)
    names = [unit.block.name for unit in chain.units]
    layouts = [deletion(chain, [name]) for name in names]
    images = np.random.default_rng(0).integers(
        0, 256, (examples, *model.input_shape[1:])
    )
    batch = keras.ops.convert_to_tensor(images, chain.graph.inputs[0].dtype)
    ways = {
        "one forward pass, the whole model": lambda: [
            model.predict_on_batch(batch)
        ],
        "one forward pass, block by block": lambda: [
            runner.predict(batch, deletion(chain, []))
        ],
        "all single deletions, sharing the intact inputs": lambda: (
            runner.predict_single_deletions(
                batch, [(k, ()) for k in range(len(names))]
            )
        ),
        "all single deletions, one by one": lambda: [
            runner.predict(batch, layout) for layout in layouts
        ],
    }
    print(f"{model.name}: {len(names)} blocks, {examples} images")
    print(f"{keras.backend.backend()}, compilation not counted")
    costs = {name: cost(run, runner) for name, run in ways.items()}
    unit = costs["one forward pass, the whole model"][0]
    for name, (seconds, blocks) in costs.items():
        print(
            f"{name + ':':50s}{seconds:9.3f} s = {seconds / unit:6.1f} passes"
            f"; {blocks / len(names):6.2f} x all blocks"
        )


def cost(run, runner, enough=10.0):
    """Seconds, and evaluations of blocks.

    The best of four times, the first of which may compile; once is enough for
    what takes long, whose blocks were compiled for what came before.
    """
    import keras

    seconds = []
    while len(seconds) < 4 and sum(seconds) < enough:
        runner.evaluations = 0
        start = time.perf_counter()
        for x in run():
            keras.ops.convert_to_numpy(x)
        seconds.append(time.perf_counter() - start)
    return min(seconds), runner.evaluations


if __name__ == "__main__":
    command_line.run(main)
