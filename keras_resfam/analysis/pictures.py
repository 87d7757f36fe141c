"""Draws the figures of Veit et al. 2016.

Each function takes what an instrument returns, and returns a
`matplotlib.figure.Figure`, which `figure.savefig(path)` writes. pyplot is not
used. The records may be of several networks, each of which has its own color.
`published=True` also draws the authors' numbers, which are those of ResNet-110
on CIFAR-10.
"""

import numpy as np

from keras_resfam._checks import check_flag, check_text
from keras_resfam.analysis import published as authors
from keras_resfam.analysis.data import check_columns
from keras_resfam.analysis.records import check_records

_TAU = "Kendall's tau of the blocks' order"


def plot_deletion(records):
    """Plots the error after the deletion of each block (figure 3).

    If the study deleted single branches (`branches=True`), they are crosses.

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
    """Plots the error after the deletion of random blocks (figure 5a).

    Args:
        records: list of dicts, as `lesion_study` returns them.
        published: bool. Whether to draw the authors' medians. Defaults to
            `False`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    check_flag("published", published)
    theirs = authors.DELETIONS if published else {}
    label = "blocks deleted at random"
    return _plot_counts(records, "deletions", label, theirs)


def plot_repetitions(records, published=False):
    """Plots the error with random blocks run twice.

    Args:
        records: list of dicts, as `lesion_study` returns them.
        published: bool. Whether to draw the authors' medians. Defaults to
            `False`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    check_flag("published", published)
    theirs = authors.REPETITIONS if published else {}
    return _plot_counts(records, "repetitions", "blocks run twice", theirs)


def plot_swaps(records, published=False):
    """Plots the error against the rank correlation of the order (figure 5b).

    Args:
        records: list of dicts, as `lesion_study` returns them.
        published: bool. Whether to draw the authors' medians. Defaults to
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
    """Plots the distribution of path lengths (figure 6a).

    Args:
        lengths: dict, as `path_lengths` returns it.
        name: str. The name of the network. Defaults to `"paths"`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    check_columns("lengths", lengths, ("length", "probability"))
    check_text("name", name)
    figure, axes = _canvas("path length", "share of all paths")
    axes.bar(lengths["length"], lengths["probability"], label=_escaped(name))
    return _finish(figure, axes)


def plot_gradients(result, name="measured"):
    """Plots the logarithm of the gradient by path length (figure 6b).

    Args:
        result: dict, as `gradient_by_path_length` returns it.
        name: str. The name of the network. Defaults to `"measured"`.

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
        label=_escaped(name),
    )
    return _finish(figure, axes)


def plot_contributions(result, name="measured", published=False):
    """Plots the share of the gradient that each path length has (figure 6c).

    Args:
        result: dict, as `gradient_by_path_length` returns it.
        name: str. The name of the network. Defaults to `"measured"`.
        published: bool. Whether to mark the authors' effective lengths.
            Defaults to `False`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    check_columns("result", result, ("length", "share"))
    check_text("name", name)
    check_flag("published", published)
    figure, axes = _canvas("path length (blocks)", "share of the gradient")
    axes.bar(result["length"], result["share"], label=_escaped(name))
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
    """Plots each trial as a dot, and the medians of each count as a line."""
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
    """Returns pairs of the name of a network and its records."""
    groups = {}
    for row in records:
        groups.setdefault((row["network"], row["weights"]), []).append(row)
    return [(_escaped(name), rows) for (name, _), rows in groups.items()]


def _escaped(name):
    """Escapes the `$` in a name, by which Matplotlib delimits mathematics."""
    return name.replace("$", r"\$")


def _select(rows, study):
    return [row for row in rows if row["study"] == study]


def _positions_of_branches(deletions, branches):
    """Returns the number of each branch's block, from 1."""
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
