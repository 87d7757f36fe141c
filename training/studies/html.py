"""Writes one self-contained HTML page with numbers and charts."""

import base64
import html
import statistics

from keras_resfam.analysis import published as authors

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; color: #222; }}
figure {{ margin: 2rem 0; }}
img {{ width: 100%; max-width: 44rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
caption, figcaption {{ text-align: left; color: #666; }}
th, td {{ padding: .2rem .8rem; border-bottom: 1px solid #ddd;
  text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{lead}</p>
{body}
</body>
</html>
"""


def page(title, lead, parts):
    """Returns the HTML of a page with tables and charts.

    Args:
        title: str.
        lead: str. The sentence below the title.
        parts: list of strings, from `table`, `picture` and `note`.

    Returns:
        The page, a str.
    """
    return TEMPLATE.format(
        title=html.escape(title), lead=html.escape(lead), body="\n".join(parts)
    )


def picture(svg, caption):
    """Returns an SVG file's bytes as a piece of HTML that holds them."""
    data = base64.b64encode(svg).decode()
    caption = html.escape(caption)
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
        "</figure>"
    )


def note(text):
    """Returns a sentence or more as a piece of HTML."""
    return f"<p>{html.escape(text)}</p>"


def table(caption, header, rows):
    """Returns rows of numbers and strings as a piece of HTML."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    )


def cell(value):
    if value is None:
        return ""
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return html.escape(text)


def lesion_rows(records, published=False):
    """Summarizes a lesion study in rows, beside the authors' numbers.

    Args:
        records: list of dicts, as `lesion_study` returns them.
        published: bool. Whether the authors' numbers apply. Defaults to
            `False`.

    Returns:
        A list of tuples: a label, the error, and the authors' or `None`.
    """
    single = errors(records, "deletion")
    theirs = authors.DELETION if published else {}
    rows = [
        (
            "intact",
            errors(records, "intact")[0],
            authors.INTACT if published else None,
        )
    ]
    for name, of in (
        ("median", statistics.median),
        ("mean", statistics.mean),
        ("best", min),
        ("worst", max),
    ):
        if single:
            label = f"one block deleted, {name}"
            rows.append((label, float(of(single)), theirs.get(name)))
    branch = errors(records, "branch")
    if branch:
        median = float(statistics.median(branch))
        rows.append(("one branch deleted, median", median, None))
    for study, label, numbers in (
        ("deletions", "random blocks deleted", authors.DELETIONS),
        ("swaps", "random swaps", authors.SWAPS),
        ("repetitions", "random blocks run twice", authors.REPETITIONS),
    ):
        for count in sorted(
            {row["count"] for row in records if row["study"] == study}
        ):
            median = float(statistics.median(errors(records, study, count)))
            other = numbers.get(count) if published else None
            rows.append((f"{label}: {count}, median", median, other))
    return rows


def errors(records, study, count=None):
    return [
        row["error"]
        for row in records
        if row["study"] == study and count in (None, row["count"])
    ]
