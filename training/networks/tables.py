"""Writes the tables of trained networks in the documents, from their folders.

All figures come from the folders. Remarks beside a name, the footnotes of
published errors, and the hardware are kept as they are in the document.
"""

import math
import re

from keras_resfam._files import read_json, replacing
from keras_resfam.pretrained import registry, sources
from keras_resfam.pretrained.files import FINGERPRINT, RECIPE
from training.run import reports, run_folder
from training.run.description import read as read_description

NONE = "–"


def write():
    """Updates the tables.

    Returns:
        A list of the documents that have changed.
    """
    changed = []
    for document in TABLES:
        path = sources.CHECKOUT / document
        old = path.read_text()
        new = render(document, old)
        if new != old:
            changed.append(document)
            with replacing(path) as partial:
                partial.write_text(new)
    return changed


def render(document, text):
    """Returns the text of a document with updated tables.

    Args:
        document: str. One of `TABLES`.
        text: str. With the headers of its tables.

    Raises:
        ValueError: If a table is missing.
    """
    for header, row in TABLES[document].items():
        text = _with_table(document, text, header, row)
    return text


def _with_table(document, text, header, row):
    """Returns the text with new rows in one table.

    Networks keep their order; new ones come last.
    """
    lines = text.split("\n")
    if header not in lines:
        raise ValueError(
            f"{document} should have a table with the header {header}. "
            "Received: a text without it"
        )
    start = lines.index(header) + 2
    end = start
    while lines[end].startswith("|"):
        end += 1
    old = _rows(document, lines[start:end], header.count("|"))
    networks = {network.name: network for network in registry.read()}
    names = [name for name in old if name in networks]
    names += sorted(networks.keys() - old.keys())
    rows = [row(networks[name], old.get(name)) for name in names]
    lines[start:end] = [f"| {' | '.join(cells)} |" for cells in rows if cells]
    return "\n".join(lines)


def _rows(document, lines, bars):
    """Returns the cells of a table's rows, by the name of the network."""
    rows = {}
    for line in lines:
        name = re.search(r"\]\((?:weights/)?(\w+)\)", line)
        if name is None or line.count("|") != bars:
            raise ValueError(
                f"The rows of the tables in {document} should have {bars - 1} "
                f"cells and a link to the network's folder. Received: {line}"
            )
        rows[name[1]] = [cell.strip() for cell in line.split("|")[1:-1]]
    return rows


def _folder(network):
    return sources.CHECKOUT / "weights" / network.name


def _result(network):
    return read_json(_folder(network) / run_folder.RESULT)


def _recipe(network):
    return read_description(_folder(network) / RECIPE)


def _error_row(network, old):
    """Returns a row of README.md: the errors, ours and the published one."""
    recipe, error = _recipe(network), _result(network)["error"]
    link = f"[`{network.call}`](weights/{network.name})"
    remark = footnote = ""
    theirs = NONE
    if old:
        remark = old[0].partition(f"(weights/{network.name})")[2]
        footnote = "".join(re.findall(r" \(\d+\)$", old[2]))
        theirs = old[4].partition(" / ")[2]
    stated = re.search(r"in (\d+) epochs", recipe["note"])
    theirs = stated[1] if stated else theirs
    return (
        link + remark,
        f"{_parameters(network):,}",
        _published(recipe) + footnote,
        _in_bold(f"{error:.2f} %", recipe["error"], error),
        f"{recipe['epochs']} / {theirs}",
    )


def _parameters(network):
    """Returns how many numbers are trained, by the fingerprint."""
    variables = read_json(_folder(network) / FINGERPRINT)["variables"]
    return sum(
        math.prod(entry["shape"])
        for name, entry in variables.items()
        if not name.endswith(("/moving_mean", "/moving_variance"))
    )


def _published(recipe):
    if recipe["error"] is None:
        return NONE
    digits = 1 if recipe["note"].startswith("by figure") else 2
    return f"{recipe['error']:.{digits}f} %"


def _in_bold(text, published, error):
    below = published is not None and round(error, 2) < published
    return f"**{text}**" if below else text


def _training_row(network, old):
    """Returns a row of weights/README.md: how a network was trained."""
    name = network.name
    log = reports.read(_folder(network), ("accuracy", "seconds"))
    minutes = sum(row["seconds"] for row in log) / 60
    return (
        f"[{name}]({name})",
        f"`{_recipe(network)['name']}`",
        f"{100 * log[-1]['accuracy']:.1f} %",
        old[3] if old else f"{minutes:.0f} min",
        f"[log]({name}/log.csv)",
    )


def _trust_row(network, old):
    """Returns a row of weights/README.md with calibration and robustness."""
    result = _result(network)
    calibration = result.get("calibration")
    corruptions = result.get("corruptions")
    others = result.get("out_of_distribution", {})
    if not (calibration or corruptions or others):
        return None
    cells = [f"[{network.name}]({network.name})", f"{result['error']:.2f} %"]
    if calibration:
        pair = calibration["before"], calibration["after"]
        cells += (
            f"{calibration['temperature']:.3f}",
            " → ".join(f"{x['nll']:.3f}" for x in pair),
            " → ".join(f"{x['calibration_error']:.2f} %" for x in pair),
        )
    else:
        cells += [NONE] * 3
    cells.append(f"{corruptions['mean_error']:.1f} %" if corruptions else NONE)
    aurocs = [
        f"{registry.title(name)}: {found['auroc_probability']:.1f} %, "
        f"{found['auroc_energy']:.1f} %"
        for name, found in others.items()
    ]
    return (*cells, "; ".join(aurocs) or NONE)


TABLES = {
    "README.md": {
        "| network | parameters | published error | our error | "
        "epochs: ours / published |": _error_row,
    },
    "weights/README.md": {
        "| network | recipe | training accuracy | hardware, time | log |": (
            _training_row
        ),
        "| network | error | temperature | NLL | ECE | corrupted | AUROC: "
        "probability, energy |": _trust_row,
    },
}
"""The documents, and the headers of their tables with what makes a row."""
