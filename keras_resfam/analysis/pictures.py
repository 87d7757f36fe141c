"""The figures of Veit et al. 2016, one call each.

Each function takes what the instruments return and gives a
`matplotlib.figure.Figure`; `figure.savefig(path)` writes it. Nothing touches
pyplot. The records may be of several networks: each gets its own color. Where
the authors' numbers apply, `published=True` draws them too.
"""

import numpy as np

from keras_resfam._checks import check_flag, check_text
from keras_resfam.analysis import published as authors
from keras_resfam.analysis.data import check_columns
from keras_resfam.analysis.records import check_records

_TAU = "Kendall's tau of the blocks' order"


def plot_deletion(records):
    """Error after the deletion of each single block (figure 3).

    Blocks with several branches show these too, as crosses, if the study
    deleted them (`branches=True`).

    Args:
        records: list of dicts, as `lesion_study` returns them.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    check_records(records, "deletion")
    figure, axes = _canvas("deleted block", "error (%)")
    for name, rows in _by_network(records):
        ours = _select(rows, "deletion")
        numbers = [row["trial"] + 1 for row in ours]
        errors = [row["error"] for row in ours]
        (line,) = axes.plot(numbers, errors, "o-", ms=3, lw=1, label=name)
        single = _select(rows, "branch")
        places = _positions_of_branches(ours, single)
        axes.plot(
            places,
            [row["error"] for row in single],
            "x",
            ms=4,
            color=line.get_color(),
            label=f"{name}, one branch" if single else None,
        )
        _draw_intact(axes, rows, line.get_color())
    axes.set_ylim(0, 100)
    return _finish(figure, axes)


def plot_deletions(records, published=False):
    """Error after the deletion of several random blocks (figure 5a).

    Args:
        records: list of dicts, as `lesion_study` returns them.
        published: bool. Whether the authors' medians are drawn. Defaults to
            `False`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    check_flag("published", published)
    theirs = authors.DELETIONS if published else {}
    label = "blocks deleted at random"
    return _plot_counts(records, "deletions", label, theirs)


def plot_repetitions(records, published=False):
    """Error with several random blocks run twice.

    Args:
        records: list of dicts, as `lesion_study` returns them.
        published: bool. Whether the authors' medians are drawn. Defaults to
            `False`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    check_flag("published", published)
    theirs = authors.REPETITIONS if published else {}
    return _plot_counts(records, "repetitions", "blocks run twice", theirs)


def plot_swaps(records, published=False):
    """Error against the rank correlation of the new order (figure 5b).

    Args:
        records: list of dicts, as `lesion_study` returns them.
        published: bool. Whether the authors' medians are drawn. Defaults to
            `False`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    check_records(records, "swaps")
    check_flag("published", published)
    figure, axes = _canvas(_TAU, "error (%)")
    for name, rows in _by_network(records):
        ours = _select(rows, "swaps")
        taus = [row["kendall_tau"] for row in ours]
        errors = [row["error"] for row in ours]
        (line,) = axes.plot(taus, errors, "o", ms=3, alpha=0.6, label=name)
        _draw_intact(axes, rows, line.get_color())
    if published:
        middles = [tau + 0.005 for tau in authors.SWAPS_BY_TAU]
        medians = list(authors.SWAPS_BY_TAU.values())
        _draw_published(axes, middles, medians)
    axes.invert_xaxis()
    axes.set_ylim(0, 100)
    return _finish(figure, axes)


def plot_path_lengths(lengths, name="paths"):
    """The distribution of path lengths (figure 6a).

    Args:
        lengths: dict, as `path_lengths` returns it.
        name: str. The network's. Defaults to `"paths"`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    check_columns("lengths", lengths, ("length", "probability"))
    check_text("name", name)
    figure, axes = _canvas("path length", "share of all paths")
    axes.bar(lengths["length"], lengths["probability"], label=_as_it_is(name))
    return _finish(figure, axes)


def plot_gradients(result, name="measured"):
    """Gradient at the input by path length, logarithmic (figure 6b).

    Args:
        result: dict, as `gradient_by_path_length` returns it.
        name: str. The network's. Defaults to `"measured"`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    check_columns("result", result, ("length", "log10_gradient"))
    check_text("name", name)
    figure, axes = _canvas("path length (blocks)", "log10 of gradient norm")
    axes.plot(
        result["length"],
        result["log10_gradient"],
        "o-",
        ms=3,
        label=_as_it_is(name),
    )
    return _finish(figure, axes)


def plot_contributions(result, name="measured", published=False):
    """Share of the gradient that paths of each length carry (figure 6c).

    Args:
        result: dict, as `gradient_by_path_length` returns it.
        name: str. The network's. Defaults to `"measured"`.
        published: bool. Whether the authors' effective lengths are marked.
            Defaults to `False`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    check_columns("result", result, ("length", "share"))
    check_text("name", name)
    check_flag("published", published)
    figure, axes = _canvas("path length (blocks)", "share of the gradient")
    axes.bar(result["length"], result["share"], label=_as_it_is(name))
    if published:
        first, last = authors.EFFECTIVE_LENGTHS
        axes.axvspan(
            first - 0.5,
            last + 0.5,
            color="0.9",
            zorder=0,
            label=authors.NETWORK,
        )
    return _finish(figure, axes)


def _plot_counts(records, study, xlabel, theirs):
    """Every trial as a dot, the medians of each count as a line."""
    check_records(records, study)
    figure, axes = _canvas(xlabel, "error (%)")
    for name, rows in _by_network(records):
        ours = _select(rows, study)
        counts = np.array([row["count"] for row in ours])
        errors = np.array([row["error"] for row in ours])
        (dots,) = axes.plot(counts, errors, "o", ms=3, alpha=0.4)
        each = sorted(set(counts.tolist()))
        medians = [np.median(errors[counts == count]) for count in each]
        color = dots.get_color()
        axes.plot(each, medians, "-", color=color, label=f"{name}, median")
        _draw_intact(axes, rows, color)
    if theirs:
        _draw_published(axes, list(theirs), list(theirs.values()))
    axes.set_ylim(0, 100)
    return _finish(figure, axes)


def _canvas(xlabel, ylabel):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=xlabel != _TAU)
    return figure, axes


def _finish(figure, axes):
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")
    return figure


def _by_network(records):
    """Pairs of a network's name and its records."""
    groups = {}
    for row in records:
        groups.setdefault((row["network"], row["weights"]), []).append(row)
    return [(_as_it_is(name), rows) for (name, _), rows in groups.items()]


def _as_it_is(name):
    """A network's name for Matplotlib, which takes `$` for mathematics."""
    return name.replace("$", r"\$")


def _select(rows, study):
    return [row for row in rows if row["study"] == study]


def _positions_of_branches(deletions, branches):
    """The number of the block, from 1, that each branch belongs to."""
    return [
        next(
            (
                row["trial"] + 1
                for row in deletions
                if branch["blocks"].startswith(f"{row['blocks']} ")
            ),
            np.nan,
        )
        for branch in branches
    ]


def _draw_intact(axes, rows, color):
    for row in _select(rows, "intact"):
        axes.axhline(row["error"], color=color, lw=0.8, ls=":")


def _draw_published(axes, x, y):
    axes.plot(x, y, "s--", ms=3, lw=1, color="0.4", label=authors.NETWORK)
