"""The charts of a study."""

import pytest

from training.page import charts

pytestmark = pytest.mark.backend_independent


def test_charts_of_what_is_measured():
    def row(study, count, trial, error, blocks="a", tau=1.0):
        keys = ("study", "count", "trial", "error", "blocks", "kendall_tau")
        values = (study, count, trial, error, blocks, tau)
        return dict(zip(keys, values, strict=True))

    records = [
        row("deletion", 1, 0, 10.0, "a"),
        row("deletion", 1, 1, 30.0, "b"),
        row("deletions", 1, 0, 10.0),
        row("deletions", 1, 1, 20.0),
        row("deletions", 1, 2, 60.0),
        row("deletions", 2, 0, 40.0),
    ]
    single, several = charts.charts(records, None, None, published=True)
    (stems,) = single["series"]
    assert stems["points"] == [[1, 10.0, "a"], [2, 30.0, "b"]]
    dots, median, theirs = several["series"]
    assert len(dots["points"]) == 4
    assert median["points"] == [[1, 20.0], [2, 40.0]]
    assert theirs["points"][0] == [1, 6.5]
    _, alone = charts.charts(records, None, None, published=False)
    assert [series["kind"] for series in alone["series"]] == ["dots", "line"]
