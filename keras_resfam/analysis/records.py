"""Reads and writes the records of lesion studies, rows of a CSV file."""

import csv
import json
import pathlib
import re

from keras_resfam._checks import check_path
from keras_resfam._files import replacing

TYPES = {
    "network": str,
    "weights": str,
    "data": str,
    "study": str,
    "count": int,
    "trial": int,
    "blocks": str,
    "kendall_tau": float,
    "error": float,
    "examples": int,
    "seed": int,
}


def read_records(path):
    """Reads the records that `lesion_study` wrote to a CSV file.

    Args:
        path: str or path. The file.

    Returns:
        A list of dicts, as `lesion_study` returns it.

    Raises:
        ValueError: If the file has other columns, or a row is not a record.
        FileNotFoundError: If the file does not exist.
    """
    check_path("path", path)
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(
            f"`path` should be a file that exists. Received: path={path}"
        )
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        try:
            if rows.fieldnames not in (None, list(TYPES)):
                raise ValueError(f"the columns {', '.join(rows.fieldnames)}")
            return [
                {name: kind(row[name]) for name, kind in TYPES.items()}
                for row in rows
            ]
        except (ValueError, TypeError, csv.Error) as error:
            raise ValueError(
                "`path` should be a file of records with the columns "
                f"{', '.join(TYPES)}. Received: {path} with {error}"
            ) from error


def check_records(records, study):
    """Checks that an argument is a list of records, some of them of a study.

    Args:
        records: The argument.
        study: str. The name of a study of `lesion_study`.
    """
    wanted = TYPES.keys()
    if not isinstance(records, list) or not all(
        isinstance(row, dict) and wanted <= row.keys() for row in records
    ):
        raise ValueError(
            "`records` should be a list of dicts, as `lesion_study` or "
            f"`read_records` returns it. Received: records={records!r}"
        )
    studies = sorted({row["study"] for row in records})
    if study not in studies:
        raise ValueError(
            f"`records` should have records of the study {study!r}. "
            f"Received: records of the studies {studies}"
        )


def key(row):
    """Returns what identifies a record or a plan within a study."""
    return row["study"], row["count"], row["trial"]


def resume(path, common, named=True):
    """Reads the records that a file already has.

    Args:
        path: str, path or `None`.
        common: dict. The values that all records of the study have in common.
        named: bool. Whether the user has named the network. Otherwise, the
            number that Keras appends to a name is ignored. Defaults to `True`.

    Returns:
        A dict from keys to records, empty if there is no file.

    Raises:
        ValueError: If the records are of another network, weights, data or
            seed.
    """

    def identity(row):
        network = row["network"]
        if not named:
            network = re.sub(r"_\d+$", "", network)
        return {**{name: row[name] for name in common}, "network": network}

    if path is None or not pathlib.Path(path).exists():
        return {}
    _drop_half_line(pathlib.Path(path))
    rows = read_records(path)
    for row in rows:
        if identity(row) != identity(common):
            raise ValueError(
                f"`output` should hold records of {identity(common)}, or not "
                f"exist. Received: output={path} with records of "
                f"{identity(row)}"
            )
    return {key(row): row for row in rows}


def _drop_half_line(path):
    """Removes the incomplete record that a power failure has left."""
    text, header = path.read_bytes(), ",".join(TYPES).encode()
    whole = text[: text.rfind(b"\n") + 1]
    if text != whole and (text.startswith(header) or header.startswith(text)):
        path.write_bytes(whole)


class Tally:
    """The mistakes that were counted so far, in a file beside the records.

    Args:
        output: str or path of the records, or `None` for no file.
        study: dict. Identifies the network and the data. Counts of another
            study are ignored.
        lesions: list. The lesions whose mistakes are counted.
    """

    def __init__(self, output, study, lesions):
        path = output and pathlib.Path(output)
        self.path = path and path.with_name(f"{path.name}.partial")
        study = json.dumps({**study, "lesions": lesions}, default=int)
        self.study = json.loads(study)

    def read(self):
        """Returns the number of batches that were counted, and the counts."""
        if self.path and self.path.exists():
            kept = json.loads(self.path.read_text())
            if kept["study"] == self.study:
                return kept["batches"], kept["wrong"]
        return 0, [0] * len(self.study["lesions"])

    def write(self, batches, wrong):
        if self.path:
            kept = {"study": self.study, "batches": batches, "wrong": wrong}
            with replacing(self.path) as partial:
                partial.write_text(json.dumps(kept))

    def remove(self):
        if self.path:
            self.path.unlink(missing_ok=True)


class Writer:
    """Context manager that appends records to a CSV file, one at a time.

    It yields a function that writes a record and returns it.

    Args:
        path: str, path or `None`, which writes nothing.
    """

    def __init__(self, path):
        self.path = path and pathlib.Path(path)

    def __enter__(self):
        self.file = None
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists() or not self.path.stat().st_size
            self.file = open(self.path, "a", newline="", encoding="utf-8")
            self.rows = csv.DictWriter(self.file, list(TYPES))
            if new:
                self.rows.writeheader()
        return self.write

    def write(self, row):
        if self.file:
            self.rows.writerow(row)
            self.file.flush()
        return row

    def __exit__(self, *_):
        if self.file:
            self.file.close()
