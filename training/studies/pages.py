"""The pictures of the studies, and the page that shows them."""

from keras_resfam.analysis import effective_lengths
from keras_resfam.analysis import pictures as draw
from keras_resfam.analysis.published import (
    EFFECTIVE_LENGTHS,
    MEAN_LENGTH,
    NETWORK,
)
from training.studies import html


def write_pages(model, description, records, lengths, gradients, out):
    """Writes the pictures, and the page that shows them."""
    # The authors' numbers are of a residual network.
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
    lead = (
        f"{description['builder']} with {description['arguments']}: "
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


def pictures(records, lengths, gradients, name, published):
    """All figures by name, with their captions."""
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
