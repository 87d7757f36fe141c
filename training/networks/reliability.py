"""The reliability diagram: how often answers are right, by their certainty."""


def draw(path, measured, title):
    """Writes the diagram of Guo et al. 2017 (figure 1), as an SVG file.

    Args:
        path: Path.
        measured: dict from names to what `trust.certainty` returns.
        title: str.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 100), (0, 100), ":", color="0.5", lw=1)
    for name, numbers in measured.items():
        rows = numbers["reliability"]
        axes.plot(
            [row["confidence"] for row in rows],
            [row["accuracy"] for row in rows],
            "o-",
            ms=3,
            lw=1,
            label=f"{name}: ECE {numbers['calibration_error']:.2f} %",
        )
    axes.set(
        title=title.replace("$", r"\$"),
        xlabel="largest probability (%)",
        ylabel="right answers (%)",
        xlim=(0, 101),
        ylim=(0, 101),
        aspect="equal",
    )
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    # The same figure is the same file.
    with matplotlib.rc_context({"svg.hashsalt": "reliability"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
