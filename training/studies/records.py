"""Reads and writes the CSV files of studies, which can be continued."""

import csv

import numpy as np

from training.run import reports


def read_or_compute(path, common, compute):
    """Reads columns from a file, or computes them and writes the file.

    Args:
        path: Path of a CSV file.
        common: dict. What the columns were computed from. Each row has it, and
            a file with other values is an error.
        compute: callable that returns a dict of arrays.
    """
    rows = read_rows(path, common)
    if not rows:
        columns = compute()
        count = len(next(iter(columns.values())))
        write_columns(
            path, columns | {k: np.repeat(v, count) for k, v in common.items()}
        )
        rows = read_rows(path, common)
    return number_columns(rows, common)


def number_columns(rows, others):
    """Returns the columns of numbers in the rows of a CSV file, by name.

    Args:
        rows: list of dicts, as `read_rows` returns them, not empty.
        others: collection of the names of other columns.
    """
    return {
        name: np.array([float(row[name]) for row in rows])
        for name in rows[0]
        if name not in others
    }


def read_rows(path, common):
    """Returns the rows of a CSV file, none if it does not exist."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:  # a power failure may leave an empty file
        return []
    found = {name: rows[0].get(name) for name in common}
    if found != {name: str(value) for name, value in common.items()}:
        raise ValueError(
            f"{path} should have {common}: remove it, or give another `--out`. "
            f"Received: {found}"
        )
    return rows


def write_columns(path, columns):
    """Writes a dict of arrays as a table, atomically."""
    values = zip(*(x.tolist() for x in columns.values()), strict=True)
    reports.write_csv(
        path, [dict(zip(columns, row, strict=True)) for row in values]
    )
