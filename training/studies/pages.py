"""Draws the charts of the studies, and writes the page that shows them."""

from keras_resfam.analysis import effective_lengths
from keras_resfam.analysis import pictures as draw
from keras_resfam.analysis.published import (
    EFFECTIVE_LENGTHS,
    MEAN_LENGTH,
    NETWORK,
)
from training.networks import loading
from training.studies import html

RANDOM_STUDIES = {
    "deletions": (
        draw.plot_deletions,
        "Several random blocks deleted",
        "The study was left out (--deletions 0).",
    ),
    "swaps": (
        draw.plot_swaps,
        "Blocks in another order",
        "The network has no two blocks that can be swapped, or the study was "
        "left out (--swaps 0). Blocks are swapped within a stage; the first "
        "block of the network and those that change the shape stay in place.",
    ),
    "repetitions": (
        draw.plot_repetitions,
        "Several random blocks run twice",
        "The network has no block that can run twice, or the study was left "
        "out (--repetitions 0). The first block of the network and those that "
        "change the shape run once.",
    ),
}
"""The studies of random blocks: how they are drawn, the caption of the picture,
and why there can be nothing to draw."""


def write_pages(model, description, records, lengths, gradients, out):
    """Writes the pictures, and the page that shows them."""
    # The authors' numbers are those of a residual network on CIFAR-10.
    published = description["dataset"] == "cifar10" and lengths is not None
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
    parts += [html.note(text) for text in not_measured(records)]
    lead = (
        f"{loading.title(model, description)}: "
        f"{model.count_params():,} parameters, "
        f"{records[0]['examples']:,} images of {description['dataset']}."
    )
    text = html.page(name, lead, parts)
    (out / "index.html").write_text(text, encoding="utf-8")


def path_table(lengths, gradients, published):
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


def not_measured(records):
    """Returns a sentence for each study that has no records."""
    there = {row["study"] for row in records}
    return [
        f"{caption}: not measured. {reason}"
        for study, (_, caption, reason) in RANDOM_STUDIES.items()
        if study not in there
    ]


def pictures(records, lengths, gradients, name, published):
    """Returns a dict from names to figures and captions."""
    there = {row["study"] for row in records}
    figures = {"deletion": (draw.plot_deletion(records), "Each block deleted")}
    for study, (plot, caption, _) in RANDOM_STUDIES.items():
        if study in there:
            figures[study] = plot(records, published), caption
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
