"""Prepares the results of a study as charts for the page."""

import statistics

from keras_resfam.analysis import published as authors


def charts(records, lengths, gradients, published):
    """Returns the charts of a study that have numbers.

    Args:
        records: list of dicts, as `lesion_study` returns them.
        lengths: dict, as `path_lengths` returns it, or `None`.
        gradients: dict, as `gradient_by_path_length` returns it, or `None`.
        published: bool. Whether the authors' numbers apply.

    Returns:
        A list of dicts, to be written as JSON: `title`, `x` and `y` (the axes),
        `series` (of `name`, `kind` and `points`), `percent` (whether y goes
        from 0 to 100), `reversed` (whether x falls).
    """
    drawn = [
        _deletion(records),
        _counts(
            records,
            "deletions",
            "Several random blocks deleted",
            "blocks deleted",
            authors.DELETIONS if published else {},
        ),
        _swaps(records, published),
        _counts(
            records,
            "repetitions",
            "Several random blocks run twice",
            "blocks run twice",
            authors.REPETITIONS if published else {},
        ),
    ]
    if lengths:
        drawn.append(_of_paths(lengths))
    if gradients:
        drawn += [_of_gradients(gradients), _of_shares(gradients, published)]
    return [chart for chart in drawn if chart["series"]]


def _deletion(records):
    """Error after the deletion of each single block (figure 3)."""
    rows = _select(records, "deletion")
    points = [[row["trial"] + 1, row["error"], row["blocks"]] for row in rows]
    found = [_series("one block deleted", "stems", points)] if rows else []
    return _chart("Each block deleted", "deleted block", found, percent=True)


def _counts(records, study, title, x, theirs):
    """Error against how many blocks are chosen at random (figure 5a)."""
    rows, found = _select(records, study), []
    if rows:
        points = [[row["count"], row["error"], row["blocks"]] for row in rows]
        found.append(_series("one trial", "dots", points))
        found.append(_series("median", "line", _medians(rows)))
    if rows and theirs:
        found.append(_published_series(theirs))
    return _chart(title, x, found, percent=True)


def _medians(rows):
    """Returns the median error of each count."""
    return [
        [
            count,
            statistics.median(x["error"] for x in rows if x["count"] == count),
        ]
        for count in sorted({row["count"] for row in rows})
    ]


def _swaps(records, published):
    """Error against the rank correlation of the new order (figure 5b)."""
    rows, found = _select(records, "swaps"), []
    if rows:
        points = [
            [row["kendall_tau"], row["error"], row["blocks"]] for row in rows
        ]
        found.append(_series("one trial", "dots", points))
    if rows and published:
        middles = {t + 0.005: y for t, y in authors.SWAPS_BY_TAU.items()}
        found.append(_published_series(middles))
    x = "Kendall's tau of the blocks' order"
    return _chart(
        "Blocks in another order", x, found, percent=True, reversed=True
    )


def _of_paths(lengths):
    """Returns how long the paths are (figure 6a)."""
    points = _pairs(lengths, "length", "probability")
    found = [_series("share of all paths", "bars", points)]
    return _chart("How long the paths are", "blocks on a path", found, "share")


def _of_gradients(gradients):
    """Gradient at the input by path length (figure 6b)."""
    points = _pairs(gradients, "length", "log10_gradient")
    found = [_series("log10 of the norm", "line", points)]
    title = "Gradient that arrives through paths of one length"
    return _chart(title, "blocks on a path", found, "log10 of gradient norm")


def _of_shares(gradients, published):
    """Share of the gradient that paths of each length carry (figure 6c)."""
    found = [
        _series(
            "share of the gradient",
            "bars",
            _pairs(gradients, "length", "share"),
        )
    ]
    if published:
        first, last = authors.EFFECTIVE_LENGTHS
        name = f"{authors.NETWORK}: almost all"
        found.append(_series(name, "band", [[first - 0.5, 0], [last + 0.5, 0]]))
    title = "Share of all gradient that paths of one length carry"
    return _chart(title, "blocks on a path", found, "share")


def _pairs(columns, x, y):
    """Returns points of two columns of numbers."""
    return [
        [float(a), float(b)]
        for a, b in zip(columns[x], columns[y], strict=True)
    ]


def _published_series(numbers):
    """Returns the authors' numbers, a dict from x to y."""
    return _series(
        authors.NETWORK, "theirs", [[x, y] for x, y in numbers.items()]
    )


def _series(name, kind, points):
    return {"name": name, "kind": kind, "points": points}


def _chart(title, x, found, y="error (%)", percent=False, reversed=False):
    return {
        "title": title,
        "x": x,
        "y": y,
        "series": found,
        "percent": percent,
        "reversed": reversed,
    }


def _select(records, study):
    return [row for row in records if row["study"] == study]
