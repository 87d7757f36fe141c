"""Draws the two charts of the README, as SVG.

    PYTHONPATH=. python tests/support/draw_figures.py

The colors can be read on GitHub's light and dark pages alike.
"""

import csv
import pathlib

FOLDER = pathlib.Path(__file__).parents[2] / "keras_resfam/analysis/figures"

GRAY, BLUE, ORANGE, RED = "#78828c", "#4184e4", "#e0702a", "#d1495b"
WIDTH, HEIGHT = 880, 340
LEFT, RIGHT, TOP, BOTTOM = 60, 870, 40, 290

# Of keras_resfam/analysis/README.md, in percent: the error of ResNet-110 when
# intact, and the errors of OrthoPlainNet-44 without any one of its layers.
INTACT = 5.95
PLAIN = 71.9, 94.4
EFFECTIVE = 5, 16  # lengths of the paths with 95 % of ResNet-110's gradient


def deletion():
    """Error with each single block of ResNet-110 deleted."""
    with open(FOLDER / "deletion.csv") as file:
        errors = [float(row["error"]) for row in csv.DictReader(file)]
    y = _scale(100)
    step = (RIGHT - LEFT) / len(errors)
    stage = len(errors) // 3
    low, high = map(y, PLAIN)
    middle = (LEFT + RIGHT) / 2
    parts = [
        _title("Test error of ResNet-110 on CIFAR-10 with one block deleted"),
        *_axis(y, range(0, 101, 25), " %"),
        _rectangle(LEFT, high, RIGHT - LEFT, low - high, RED, 0.15),
        _text(
            middle,
            (low + high) / 2 + 5,
            "for comparison: a plain network of 44 layers, one layer deleted",
            "middle",
        ),
    ]
    for block, error in enumerate(errors):
        x = LEFT + block * step
        first = block % stage == 0
        color = ORANGE if first else BLUE
        parts.append(
            _rectangle(x + 2, y(error), step - 4, y(0) - y(error), color)
        )
        if first:
            name = "first block" if block == 0 else "channels double"
            parts.append(
                _text(x + step + 4, y(error) + 14, f"{name}: {error:.1f} %")
            )
            number = block // stage + 1
            label = f"stage {number}: blocks {block + 1} to {block + stage}"
            center = x + stage * step / 2
            parts.append(_text(center, BOTTOM + 24, label, "middle"))
    parts.append(_line(y(INTACT), GRAY, "6 4"))
    label = f"intact: {INTACT} %"
    end = LEFT + stage * step - 4  # of the first stage
    parts.append(_text(end, y(INTACT) - 16, label, "end"))
    return _svg(parts)


def path_lengths():
    """Lengths of the paths of ResNet-110, and those that carry gradient."""
    import keras_resfam

    paths = keras_resfam.analysis.path_lengths(keras_resfam.ResNet(depth=110))
    shares = 100 * paths["probability"]
    y = _scale(12)
    step = (RIGHT - LEFT) / len(shares)
    start, end = (
        LEFT + step * place for place in (EFFECTIVE[0], EFFECTIVE[1] + 1)
    )
    parts = [
        _title("Paths through ResNet-110 by length, in blocks"),
        *_axis(y, range(0, 13, 4), " %"),
        _rectangle(start, TOP, end - start, BOTTOM - TOP, ORANGE, 0.15),
    ]
    words = (
        "95 % of the gradient",
        f"in paths of {EFFECTIVE[0]} to {EFFECTIVE[1]} blocks",
    )
    for row, line in enumerate(words):
        center = (start + end) / 2
        parts.append(_text(center, 100 + 20 * row, line, "middle"))
    for length, share in enumerate(shares):
        x = LEFT + step * length
        height = y(0) - y(share)
        parts.append(_rectangle(x + 2, y(share), step - 4, height, BLUE))
        if length % 9 == 0:
            parts.append(
                _text(x + step / 2, BOTTOM + 24, str(length), "middle")
            )
    mean = LEFT + step * (len(shares) / 2 + 8)
    parts.append(_text(mean, 100, "share of all paths"))
    return _svg(parts)


def _scale(largest):
    """Where a value lies, in pixels from the top."""
    return lambda value: BOTTOM - (BOTTOM - TOP) * value / largest


def _axis(y, values, unit):
    for value in values:
        yield _line(y(value), GRAY, opacity=0.35)
        yield _text(LEFT - 8, y(value) + 5, f"{value}{unit}", "end")


def _title(text):
    return _text(LEFT, 20, text, weight="bold")


def _text(x, y, text, anchor="start", weight="normal"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{text}</text>'
    )


def _rectangle(x, y, width, height, color, opacity=1):
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" fill="{color}" fill-opacity="{opacity}"/>'
    )


def _line(y, color, dashes="none", opacity=1):
    return (
        f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="{color}" '
        f'stroke-dasharray="{dashes}" stroke-opacity="{opacity}"/>'
    )


def _svg(parts):
    lines = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} '
        f'{HEIGHT}" width="{WIDTH}" height="{HEIGHT}" fill="{GRAY}" '
        'font-family="sans-serif" font-size="15">',
        *parts,
        "</svg>",
    )
    return "\n".join(lines) + "\n"


FIGURES = {"deletion.svg": deletion, "path_lengths.svg": path_lengths}

if __name__ == "__main__":
    for name, draw in FIGURES.items():
        (FOLDER / name).write_text(draw())
