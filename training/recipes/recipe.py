"""Recipes: all numbers of a training run, in one dataclass."""

import ast
import dataclasses
import itertools
import math
import re

PRECISIONS = "float32", "mixed_bfloat16", "mixed_float16"

# The fields on which the published error depends.
PUBLISHED = {"arguments", "builder", "dataset", "test_split", "weights"}

# The fields by the range of their values.
ABOVE_ZERO = (
    *("epochs", "batch_size", "learning_rate", "drop_factor"),
    *("clip_norm", "image_size", "modulation_epochs"),
)
AT_LEAST_ZERO = (
    *("validation", "warmup", "weight_decay", "crop"),
    *("lighting", "cutout", "mixup"),
)
BELOW_ONE = ("momentum", "jitter", "label_smoothing", "average")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers that turn a builder and a data set into a trained network.

    Lengths are in epochs, sizes in pixels, errors in percent. Everything may
    be changed from the command line with `--set field=value`.

    Args:
        name: str. The name for `--recipe`.
        source: str. The source of the numbers.
        builder: str. The name of a builder of `keras_resfam`.
        arguments: dict. The builder's architecture arguments.
        weights: str or `None`. The initial weights, except for the classifier:
            `None` for random ones, or the builder's argument `weights`.
        dataset: str. A name in `keras_resfam.datasets`, or any image
            classification data set of TensorFlow Datasets.
        train_split: str. TFDS split; parts are joined with "+".
        test_split: str. The split that the log's `val_` columns measure,
            unless `validation` is set.
        validation: int. The number of examples at the end of the training set
            that are held out, to select the best epoch. `0` trains on all.
        image_size: int or `None`. Images are decoded and cropped to this side
            when they are needed. With `None`, they have one size and are kept
            in memory.
        epochs: int.
        batch_size: int. Over all devices together.
        learning_rate: float. The peak.
        schedule: "steps" (times `drop_factor` after each of `drops`) or
            "cosine" (to zero at the end, and at each of `restarts`).
        drops: tuple of ints. Epochs completed at each drop.
        drop_factor: float.
        warmup: float. With "cosine": epochs of linear growth from zero.
        restarts: tuple of ints. With "cosine": epochs completed when the rate
            returns to its peak (Loshchilov & Hutter 2017, SGDR). The weights of
            those epochs are kept.
        momentum, nesterov: The arguments of SGD.
        restart_momentum: bool. Whether to zero the momentum at each drop, as
            scripts do that create a new optimizer there.
        weight_decay: float. Coupled, as in Torch: added to the gradient.
        decay: "all" variables or "kernels" only.
        clip_norm: float or `None`. The largest norm of the whole gradient.
        flip: bool. Whether to mirror half of the images.
        crop: int. Padding on each side before a random crop.
        crop_area: tuple of two floats. With `image_size`: the least and the
            largest share of the image that a random crop takes, of an aspect
            between 3/4 and 4/3.
        padding: "mean" (the color that the network normalizes to zero) or
            "reflect".
        jitter: float. Largest change of brightness, contrast and saturation,
            each by a factor.
        lighting: float. Standard deviation of the light along ImageNet's
            principal colors.
        cutout: int. The side of the square that is filled, `0` for none.
        mixup: float. Alpha of the Beta distribution, `0` for none.
        label_smoothing: float.
        average: float. The decay per step of the moving average of the weights
            that is evaluated and saved, `0` for the weights themselves.
        drop_blocks: dict or `None`. Arguments of
            `keras_resfam.analysis.drop_blocks`.
        modulation_epochs: int or `None`. The number of epochs after which
            `GradientModulation` ends. With `None`, it does not end.
        penalty_schedule: tuple of pairs: epochs completed, and the factor of
            the penalties of the weights from then on.
        log_moments: bool. Log `moment_ratio`: the second moment of the
            error at the last convolution over that at the first, of one batch
            of training images, by `keras_resfam.analysis.error_moments`.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
        compiled: bool. With torch, train the network as one program, by
            `keras_resfam.compiled`. Other backends compile by themselves.
        error: float or `None`. Published test error, in percent.
        note: str. What a reader should know about `error`.
    """

    name: str
    source: str
    builder: str
    arguments: dict
    weights: str | None = None
    dataset: str
    train_split: str = "train"
    test_split: str = "test"
    validation: int = 0
    image_size: int | None = None
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str = "steps"
    drops: tuple = ()
    drop_factor: float = 0.1
    warmup: float = 0.0
    restarts: tuple = ()
    momentum: float = 0.9
    nesterov: bool = True
    restart_momentum: bool = False
    weight_decay: float
    decay: str = "all"
    clip_norm: float | None = None
    flip: bool = True
    crop: int = 4
    crop_area: tuple = (0.08, 1.0)
    padding: str = "mean"
    jitter: float = 0.0
    lighting: float = 0.0
    cutout: int = 0
    mixup: float = 0.0
    label_smoothing: float = 0.0
    average: float = 0.0
    drop_blocks: dict | None = None
    modulation_epochs: int | None = None
    penalty_schedule: tuple = ()
    log_moments: bool = False
    precision: str = "float32"
    compiled: bool = False
    error: float | None = None
    note: str = ""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check_type(field.name, field.type, getattr(self, field.name))
        plain = re.fullmatch(r"\w[\w.-]*", self.name)
        _check(plain, "name", "letters, digits, '_', '-' and '.'", self)
        _check_choice("schedule", self.schedule, ("steps", "cosine"))
        _check_choice("decay", self.decay, ("all", "kernels"))
        _check_choice("padding", self.padding, ("mean", "reflect"))
        _check_choice("precision", self.precision, PRECISIONS)
        self._check_ranges()
        self._check_schedule()
        self._check_penalty_schedule()

    def _check_ranges(self):
        for field in ABOVE_ZERO:
            value = getattr(self, field)
            _check(value is None or value > 0, field, "above 0", self)
        for field in AT_LEAST_ZERO:
            fits = 0 <= getattr(self, field) < math.inf
            _check(fits, field, "a number of at least 0", self)
        for field in BELOW_ONE:
            _check(0 <= getattr(self, field) < 1, field, "in [0, 1)", self)
        area = [0, *self.crop_area, 1]
        fits = (
            len(area) == 4
            and all(isinstance(share, int | float) for share in area)
            and 0 < area[1] <= area[2] <= 1
        )
        _check(fits, "crop_area", "(least, largest) above 0, up to 1", self)

    def _check_schedule(self):
        if self.schedule == "steps":
            allowed = "0 with the schedule 'steps'"
            _check(not self.warmup, "warmup", allowed, self)
            _check(not self.restarts, "restarts", "() with 'steps'", self)
        else:
            _check(not self.drops, "drops", "() with 'cosine'", self)
            kept = not self.restart_momentum
            _check(kept, "restart_momentum", "False with 'cosine'", self)
        for field in ("drops", "restarts"):
            fits = self._grow(getattr(self, field))
            _check(fits, field, f"epochs {self._span()}", self)
        first = [*self.restarts, self.epochs][0]
        _check(self.warmup <= first, "warmup", f"at most {first}", self)

    def _check_penalty_schedule(self):
        pairs = self.penalty_schedule
        fits = (
            all(isinstance(p, tuple | list) and len(p) == 2 for p in pairs)
            and self._grow([epoch for epoch, _ in pairs])
            and all(
                isinstance(factor, int | float) and 0 <= factor < math.inf
                for _, factor in pairs
            )
        )
        allowed = "pairs of an epoch and a factor of at least 0, epochs "
        _check(fits, "penalty_schedule", allowed + self._span(), self)

    def _span(self):
        return f"in growing order between 0 and {self.epochs}"

    def _grow(self, epochs):
        """Returns whether epochs are ints in growing order within the run."""
        points = [0, *epochs, self.epochs]
        return all(isinstance(point, int) for point in points) and all(
            a < b for a, b in itertools.pairwise(points)
        )

    def penalty_factor(self, epoch):
        """Returns the factor of the penalties of the weights.

        Args:
            epoch: int, from 0.
        """
        factors = [f for start, f in self.penalty_schedule if start <= epoch]
        return [1.0, *factors][-1]

    def modulates(self, epoch):
        """Returns whether `GradientModulation` acts in an epoch, from 0."""
        end = self.modulation_epochs
        return end is None or epoch < end

    def replace(self, **changes):
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def with_epochs(self, epochs):
        """Returns a copy with another number of epochs.

        The schedule is scaled in proportion. So is the decay of the moving
        average, in which the share of the initial weights stays the same.
        """

        def moved(points):
            points = {round(point * epochs / self.epochs) for point in points}
            return tuple(sorted(p for p in points if 0 < p < epochs))

        length = max(epochs, 1)  # smaller ones are an error in `replace`
        factors = {
            round(point * epochs / self.epochs): factor
            for point, factor in self.penalty_schedule
        }
        end = self.modulation_epochs
        if end is not None:
            end = max(1, round(end * epochs / self.epochs))
        return self.replace(
            epochs=epochs,
            drops=moved(self.drops),
            warmup=self.warmup * epochs / self.epochs,
            restarts=moved(self.restarts),
            average=self.average ** (self.epochs / length),
            modulation_epochs=end,
            penalty_schedule=tuple(
                (p, f) for p, f in factors.items() if 0 < p < epochs
            ),
        )

    def with_settings(self, settings):
        """Returns a copy with the changes of `--set`.

        If they change the network or the data set, the published error is
        removed.

        Args:
            settings: list of pairs `(name, value)`. A name is a field, or
                `arguments.<argument>` for one argument of the builder.

        Raises:
            ValueError: If a name is not a field.
        """
        changes = {}
        fields = [field.name for field in dataclasses.fields(self)]
        for name, value in settings:
            field, _, key = name.partition(".")
            if field not in fields or (key and field != "arguments"):
                raise ValueError(
                    f"`--set` takes `arguments.{name}` for an argument of the "
                    f"builder, or a field of the recipe: {', '.join(fields)}. "
                    f"Received: {name}={value}"
                )
            if key:
                arguments = changes.get("arguments", self.arguments)
                check_type("arguments", dict, arguments)
                value = {**arguments, key: value}
            changes[field] = value
        of_network = PUBLISHED & changes.keys()
        if any(changes[field] != getattr(self, field) for field in of_network):
            changes = {"error": None, "note": "", **changes}
        return self.replace(**changes)


def parse_setting(text):
    """Splits `name=value`, and parses the value as Python or a str.

    Raises:
        ValueError: If there is no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"`--set` takes FIELD=VALUE. Received: --set {text}")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return name, value  # a str, which `check_type` may refuse


def check_type(field, kind, value):
    """Checks the type of a value, which may come from `--set` or JSON."""
    allowed = kind
    if isinstance(1.0, allowed):
        allowed |= int
    if allowed is tuple:
        allowed |= list  # as JSON and `--set` may have it
    if not isinstance(value, allowed) or isinstance(value, bool) != (
        kind is bool
    ):
        name = getattr(kind, "__name__", kind)
        raise ValueError(
            f"A recipe's `{field}` should be of the type {name}. "
            f"Received: {field}={value!r}"
        )


def _check_choice(field, value, choices):
    if value not in choices:
        raise ValueError(
            f"A recipe's `{field}` should be one of {', '.join(choices)}. "
            f"Received: {field}={value!r}"
        )


def _check(condition, field, allowed, recipe):
    if not condition:
        raise ValueError(
            f"A recipe's `{field}` should be {allowed}. "
            f"Received: {field}={getattr(recipe, field)!r}"
        )
