"""Three measures of how far a classifier's answers can be trusted.

They are its calibration (whether its probabilities are as high as its
accuracy), its error on corrupted images, and whether it is less confident on
images that belong to none of its classes.
"""

import numpy as np

from training.images import corruptions, evaluation
from training.networks import accuracy

_TEMPERATURES = 0.01, 100.0


def fit_temperature(logits, labels):
    """Returns the temperature that minimizes the negative log-likelihood.

    Reference: Guo et al. 2017, https://arxiv.org/abs/1706.04599.

    Args:
        logits: float64 array of shape `(examples, classes)`.
        labels: int array of shape `(examples,)`.

    Raises:
        ValueError: If there is no minimum, because all answers are right or no
            better than guesses.
    """
    from scipy.optimize import brentq

    right = logits[np.arange(len(labels)), labels]

    def slope(log_temperature):
        """Returns the derivative by 1 / T, in which the function is convex."""
        logs = accuracy.log_softmax(logits / np.exp(log_temperature))
        return ((np.exp(logs) * logits).sum(axis=1) - right).mean()

    low, high = np.log(_TEMPERATURES)
    if not slope(low) > 0 > slope(high):
        raise ValueError(
            "A temperature should be fitted to images of which the network "
            f"classifies some right and some wrong. Received: {len(labels)} "
            "images for which the likelihood has no maximum between the "
            f"temperatures {_TEMPERATURES[0]} and {_TEMPERATURES[1]}"
        )
    return float(np.exp(brentq(slope, low, high, xtol=1e-10)))


def calibration(logits, labels, split, held_out=None):
    """Fits a temperature on some images, and measures it on others.

    Args:
        logits: float64 array of shape `(examples, classes)`.
        labels: int array of shape `(examples,)`.
        split: str. Which images these are.
        held_out: `(logits, labels, split)` of the images to fit on. Defaults
            to `None`: it is fitted on every second image, the first, third and
            so on, and measured on the others.

    Returns:
        A dict. "temperature"; "fitted_on" and "measured_on", which have "split"
        and "examples"; "before" and "after", which are as `certainty` returns
        it without and with the temperature.
    """
    if held_out is None:
        held_out = logits[::2], labels[::2], f"{split}[::2]"
        logits, labels, split = logits[1::2], labels[1::2], f"{split}[1::2]"
    fit_logits, fit_labels, fit_split = held_out
    temperature = fit_temperature(fit_logits, fit_labels)

    return {
        "temperature": temperature,
        "fitted_on": {"split": fit_split, "examples": len(fit_labels)},
        "measured_on": {"split": split, "examples": len(labels)},
        "before": certainty(logits, labels),
        "after": certainty(logits / temperature, labels),
    }


def certainty(logits, labels):
    """Returns how a classifier's probabilities fit its answers.

    Args:
        logits: float64 array of shape `(examples, classes)`.
        labels: int array of shape `(examples,)`.

    Returns:
        A dict. "nll" and "calibration_error", as `accuracy.metrics` has them,
        and "reliability", as `accuracy.reliability` returns it.
    """
    logs = accuracy.log_softmax(logits)
    numbers = accuracy.metrics(logs, labels)
    right = np.argmax(logits, axis=1) == labels
    return {
        "nll": numbers["nll"],
        "calibration_error": numbers["calibration_error"],
        "reliability": accuracy.reliability(np.exp(logs.max(axis=1)), right),
    }


def under_corruptions(model, images, labels, seed=0):
    """Returns the errors of a classifier on corrupted images.

    Args:
        model: `keras.Model` from raw images to logits.
        images: uint8 array of shape `(examples, 32, 32, 3)`.
        labels: int array of shape `(examples,)`.
        seed: int. Of what is random in the corruptions.

    Returns:
        A dict. "examples", "seed", "mean_error", in percent, over all
        corruptions and severities, and "errors", a dict from the corruptions'
        names to their errors in the five severities.
    """
    errors = {}
    for name in corruptions.CORRUPTIONS:
        errors[name] = []
        for severity in corruptions.SEVERITIES:
            corrupted = corruptions.corrupt(images, name, severity, seed)
            batches = evaluation.in_batches(corrupted, labels)
            logits, _ = accuracy.logits_of(model, batches)
            wrong = np.argmax(logits, axis=1) != labels
            errors[name].append(float(100 * np.mean(wrong)))
    return {
        "examples": len(labels),
        "seed": seed,
        "mean_error": float(np.mean(list(errors.values()))),
        "errors": errors,
    }


def out_of_distribution(inside, outside):
    """Measures how well confidence separates a classifier's images from others.

    Args:
        inside: float64 array of shape `(examples, classes)`. The logits of
            images of its classes.
        outside: The logits of images of none of them.

    Returns:
        A dict of "examples" (others) and, in percent, "auroc_probability", by
        the largest probability (Hendrycks & Gimpel 2017,
        https://arxiv.org/abs/1610.02136), and "auroc_energy", by the logarithm
        of the sum of the exponentials of the logits (Liu et al. 2020,
        https://arxiv.org/abs/2010.03759).
    """
    probability, energy = (
        100 * auroc(score(inside), score(outside))
        for score in (_largest_log_probability, _negative_energy)
    )
    return {
        "examples": len(outside),
        "auroc_probability": probability,
        "auroc_energy": energy,
    }


def _largest_log_probability(logits):
    # Probabilities near 1 would be rounded to ties, but logarithms are not.
    return accuracy.log_softmax(logits).max(axis=1)


def _negative_energy(logits):
    return logits.max(axis=1) - _largest_log_probability(logits)


def auroc(high, low):
    """Returns the chance that `high` exceeds `low`, where ties count half."""
    low = np.sort(low)
    below = np.searchsorted(low, high, "left")
    not_above = np.searchsorted(low, high, "right")
    return float(np.mean(below + not_above) / 2 / len(low))
