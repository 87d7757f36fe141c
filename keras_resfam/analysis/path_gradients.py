"""Gradients by path length: which paths train the network (Veit, section 5)."""

import itertools
import math

import keras
import numpy as np
from keras import ops

from keras_resfam import graphs
from keras_resfam._checks import (
    are_probabilities,
    check_choice,
    check_integer,
    check_number,
    is_integer,
    is_iterable,
)
from keras_resfam.analysis.data import (
    check_classifier,
    check_columns,
    images_and_labels,
)
from keras_resfam.analysis.finding import check_blocks, residual_chain
from keras_resfam.backends.inference import input_gradient


def gradient_by_path_length(
    model,
    x,
    y,
    *,
    lengths=None,
    samples=10,
    batch_size=50,
    seed=0,
    verbose=1,
):
    """Measures how much gradient the paths of each length carry.

    The whole network runs forward, in inference. Backward, `k` blocks drawn at
    random pass the error on through their residual branches only, all others
    through their shortcuts only (Veit et al. 2016, section 5 and figure 6);
    the norm of what arrives at the input is averaged over images and draws.
    Each image has draws of its own. The number of such choices of `k` blocks
    times that norm is the paths' contribution.

    The gradients are scaled by powers of two while they travel and the norms
    kept as logarithms, so that no length underflows.

    The loss is the cross-entropy of one image, from the logits before the
    model's softmax, and the norm is the L2 norm of its gradient by the image
    as the model takes it (by pixel values, if the model has its preprocessing
    inside).

    Example:

    ```python
    result = gradient_by_path_length(model, x_test[:100], y_test[:100])
    effective_lengths(result)  # e.g. (5, 17)
    ```

    Args:
        model: functional `keras.Model` with residual blocks, whose output is
            softmax probabilities or logits.
        x: array of images.
        y: array of labels: ints, or one-hot rows.
        lengths: int or sequence of ints, from 0 to the number of blocks, or
            `None` for all of them.
        samples: int or `"all"`. Draws for each image and length; `"all"`
            takes every choice of `k` blocks (in small networks). Defaults to
            `10`.
        batch_size: int. Defaults to `50`.
        seed: int, at least 0. Every length has draws of its own by it.
            Defaults to `0`.
        verbose: 0 or 1. Whether a progress bar is shown. Defaults to `1`.

    Returns:
        A dict of arrays, one item for each length: `length`, in blocks;
        `log10_paths`, of the number of choices; `log10_gradient`, of the mean
        norm (`-inf` where no gradient arrives); `log10_contribution`, their
        sum; and `share` of the contribution of all these lengths. A path here
        is a choice of blocks, also where a block joins several streams, or
        lies within the branch of another: a choice that has the inner block
        without the outer counts both, though the path takes neither
        (`path_lengths` counts such paths as what they are).

    Raises:
        ValueError: If an argument is not allowed, the model is quantized, a
            gradient is not finite at any scale, or probabilities come out of
            something else than a softmax.
    """
    check_integer("batch_size", batch_size)
    check_integer("seed", seed, 0)
    check_choice("verbose", verbose, (0, 1))
    every = isinstance(samples, str) and samples == "all"
    if not every and not is_integer(samples, 1):
        raise ValueError(
            "`samples` should be an integer of at least 1, or 'all'. "
            f"Received: samples={samples!r}"
        )
    gradient = PathGradient(model)
    images, labels = images_and_labels(x, y, model, gradient.chain)
    gradient.check_logits(images[:2])  # two tell, and cost little
    n = gradient.blocks
    lengths = range(n + 1) if lengths is None else lengths
    lengths = list(lengths) if is_iterable(lengths) else [lengths]
    if not lengths or not all(is_integer(k, 0) and k <= n for k in lengths):
        raise ValueError(
            f"`lengths` should be integers within 0 and {n}, the number of "
            f"blocks. Received: lengths={lengths}"
        )
    lengths = sorted(set(lengths))
    bar = keras.utils.Progbar(len(lengths), verbose=verbose)
    decay = _Decay()
    for k in lengths:
        # By seed and length alone: a study of fewer lengths draws the same.
        masks = _masks(n, k, len(images), samples, [seed, k])
        expected = decay.expected(k)
        logs = _log2_norms(
            gradient, images, labels, masks, expected, batch_size
        )
        # The mean of the norms, not of their logarithms: figure 6's.
        decay.add(k, _log_mean(logs))
        bar.add(1)
    return _summary(n, lengths, [decay.known[k] for k in lengths])


_SMALL = 2.0**-20  # of norms: far above what float32 loses
_MOST_OF_A_GATE = 100  # largest exponent of the factor of one switch


class _Decay:
    """The log2 norms measured so far, and what to expect of a length."""

    def __init__(self):
        self.known = {}

    def add(self, length, log2_norm):
        self.known[length] = log2_norm

    def expected(self, length):
        # A length without any gradient, -inf, tells nothing of the next.
        found = [(k, v) for k, v in self.known.items() if math.isfinite(v)]
        if not found:
            return 0.0
        last, norm = found[-1]
        if len(found) == 1:
            return norm
        before, previous = found[-2]
        # Norms fall about exponentially with the length (figure 6b).
        slope = (norm - previous) / (last - before)
        return norm + slope * (length - last)


def _log2_norms(gradient, images, labels, masks, expected, batch_size):
    """The log2 norms at the input, one for each image and mask.

    The scale is that at which the norm is expected near 1. Where the
    expectation fails so far that a result is lost, it is moved.
    """
    logs, exponent = [], round(-expected)
    for image_masks in masks:
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            batch = images[part], labels[part], image_masks[part]
            # The next batch begins with the scale at which this one showed.
            found, exponent = _rescale_until_finite(gradient, batch, exponent)
            logs.append(found)
    return np.concatenate(logs)


def _rescale_until_finite(gradient, batch, exponent):
    """Log2 norms of a batch, and the scale's exponent at which they show.

    The scale is moved until the largest norm is not small: then what is lost
    below float32's range does not matter to it. What is zero as far up as all
    stays finite is zero.
    """
    # Each block on the path has a gate, and so has the loss; all masks of a
    # batch have as many ones.
    gates = 1 + np.count_nonzero(batch[-1][0])
    low, high = -_MOST_OF_A_GATE * gates, _MOST_OF_A_GATE * gates
    exponent, found = int(np.clip(exponent, low + 1, high - 1)), None
    while high - low > 1:
        norms = _norms(gradient(*batch, exponent))
        # Bisection: what overflows bounds the scale from above, what is small
        # from below.
        if not np.all(np.isfinite(norms)):
            high = exponent
            exponent = (low + high) // 2
            continue
        found, low = (norms, exponent), exponent
        most = np.max(norms)
        if most >= _SMALL:
            break
        # The largest norm shows how far to go, unless it was lost altogether.
        upward = -round(math.log2(most)) if most else (high - low) // 2
        exponent = min(low + upward, high - 1)
    if found is None:
        raise ValueError(
            "The gradient of every image in `x` should be finite at some "
            f"scale. Received: norms={norms} through {gates - 1} blocks"
        )
    norms, exponent = found
    with np.errstate(divide="ignore"):
        return np.log2(norms) - exponent, exponent


def _norms(gradients):
    # The square of a float32 norm may be too small for float32.
    gradients = np.asarray(gradients, "float64")
    return np.sqrt(np.sum(gradients.reshape(len(gradients), -1) ** 2, -1))


def _log_mean(logs):
    """log2 of the mean of numbers given by their log2."""
    # Relative to the largest, of which no power of two underflows.
    most = np.max(logs)
    if not np.isfinite(most):
        return float(most)
    return float(most + np.log2(np.mean(np.exp2(logs - most))))


def _masks(n, k, images, samples, entropy):
    """Yields masks of shape (images, n), `k` ones in each row."""
    if samples == "all":
        for chosen in itertools.combinations(range(n), k):
            mask = np.zeros((images, n), "float32")
            mask[:, list(chosen)] = 1
            yield mask
        return
    random = np.random.default_rng(entropy)
    # There is one choice of no block, and one of all.
    for _ in range(samples if 0 < k < n else 1):
        # The blocks of the k lowest ranks: each choice of k is as likely.
        ranks = random.random((images, n)).argsort(-1).argsort(-1)
        yield (ranks < k).astype("float32")


def _summary(n, lengths, log2_norms):
    # Python's integers and their logarithm have no largest number.
    paths = np.array([math.log10(math.comb(n, k)) for k in lengths])
    gradients = np.array(log2_norms) * math.log10(2)
    contributions = paths + gradients
    most = np.max(contributions)
    shares = 10.0 ** (contributions - (most if np.isfinite(most) else 0))
    return {
        "length": np.array(lengths),
        "log10_paths": paths,
        "log10_gradient": gradients,
        "log10_contribution": contributions,
        "share": shares / (np.sum(shares) or 1),
    }


def effective_lengths(result, mass=0.95):
    """The shortest range of path lengths that carries most of the gradient.

    Args:
        result: dict, as `gradient_by_path_length` returns it.
        mass: float, above 0, at most 1. The share of the contribution that
            the range has at least. Defaults to `0.95`.

    Returns:
        A tuple `(first, last)` of lengths in blocks.

    Raises:
        ValueError: If `mass` is not allowed, or if `result` has no gradient,
            or gaps between its lengths.
    """
    check_number("mass", mass, above=0, maximum=1)
    check_columns("result", result, ("length", "share"))
    lengths, total = result["length"], np.cumsum([0, *result["share"]])
    if np.any(np.diff(lengths) != 1):
        raise ValueError(
            "`result` should be of lengths without gaps. "
            f"Received: lengths={list(lengths)}"
        )
    if not 0 < total[-1] < math.inf:
        raise ValueError(
            "`result` should have a gradient at some length. "
            f"Received: result={result}"
        )
    ranges = [
        (last - first, first, last)
        for first in range(len(lengths))
        for last in range(first, len(lengths))
        if total[last + 1] - total[first] >= mass * total[-1] - 1e-12
    ]
    _, first, last = min(ranges)
    return int(lengths[first]), int(lengths[last])


class PathGradient:
    """The gradient by the input that travels back through chosen blocks.

    Called with images, integer labels and masks of shape `(images, blocks)`,
    it returns an array of the images' shape. Where a mask is 0 a block passes
    the error on through its shortcut, where it is 1 through its residual
    branches. Each image has its own loss. The result is multiplied by two to
    the power of `exponent`, of which the loss and all that comes out of each
    of those blocks' places take a share.

    Args:
        model: functional `keras.Model`.

    Attributes:
        blocks: int. The number of residual blocks.
    """

    def __init__(self, model):
        chain = residual_chain(graphs.read_single(model))
        check_blocks(chain)
        check_classifier(chain)
        check_floats(chain.graph)
        self.chain = chain
        self.blocks = len(chain.units)
        self._gated, self._softmax_found = _with_path_switches(chain)
        self._gradient = input_gradient(self._gated, _cross_entropy)

    def __call__(self, images, labels, masks, exponent=0):
        labels = ops.convert_to_tensor(np.asarray(labels), "int32")
        inputs = self._inputs(images, _scaled_masks(masks, exponent))
        return ops.convert_to_numpy(self._gradient(inputs, labels))

    def _inputs(self, images, switches):
        types = [x.dtype for x in self._gated.inputs]
        return [
            ops.convert_to_tensor(np.asarray(x), dtype)
            for x, dtype in zip((images, switches), types, strict=True)
        ]

    def check_logits(self, images):
        """Refuses a model whose softmax the graph does not show."""
        if self._softmax_found:
            return
        masks = _scaled_masks(np.zeros((len(images), self.blocks)), 0)
        outputs = self._gated(self._inputs(images, masks), training=False)
        outputs = ops.convert_to_numpy(outputs)
        if are_probabilities(outputs):
            raise ValueError(
                "`model` should end in a softmax layer, or in logits: its "
                "outputs are probabilities, and no softmax is found in its "
                f"graph. Received: model with the outputs {outputs}"
            )


def check_floats(graph):
    """Refuses a quantized model: no error travels through integers."""
    quantized = [
        step.operation.name
        for step in graph.steps
        if getattr(step.operation, "quantization_mode", None)
    ]
    if quantized:
        raise ValueError(
            "`model` should not be quantized. Received: model with the "
            f"quantized layers {quantized}"
        )


def _scaled_masks(masks, exponent):
    """Masks with a last column for the loss, times powers of two.

    The exponents of a row add up to `exponent`, evenly shared.
    """
    masks = np.asarray(masks, "float64")
    gates = np.concatenate([masks, np.ones((len(masks), 1))], axis=1)
    # The first gates take the remainder, so that the sum is exact.
    rank = np.cumsum(gates, axis=1)
    share, more = np.divmod(exponent, rank[:, -1:])
    return gates * np.exp2(share + (rank <= more))


def _cross_entropy(logits, labels):
    """Summed over the images, so that each has a gradient of its own."""
    return ops.sum(
        keras.losses.sparse_categorical_crossentropy(
            labels, logits, from_logits=True
        )
    )


def _with_path_switches(chain):
    """The chain's logits, with switches at additions and gates behind blocks.

    They are a second input: a column for each block, and one for the loss. A
    gate multiplies the error of whatever is read behind its block, so that
    each path meets it once, also one that goes round the block's addition.

    Returns:
        A `keras.Model`, and whether a softmax was found and taken away.
    """
    (source,) = chain.graph.inputs
    # No gradient goes back to integers, such as uint8 images.
    floats = "float" in source.dtype
    images = keras.Input(
        batch_shape=source.shape,
        dtype=source.dtype if floats else keras.config.floatx(),
    )
    # A float16 would not hold the powers of two.
    masks = keras.Input((len(chain.units) + 1,), dtype="float32")
    switches = {}
    for k, unit in enumerate(chain.units):
        for join in unit.joins:
            skips = join.added(join.shortcuts)
            switch = _PathSwitch(
                k, len(skips), dtype=join.step.outputs[0].dtype
            )
            # Shortcuts first, where the switch looks for them.
            tensors = [*skips, *join.added(join.branches), masks]
            switches[id(join.step)] = graphs.Step(
                switch, (tensors,), {}, join.step.outputs
            )
    pieces = [[*unit.lead, *unit.body] for unit in chain.units] + [chain.head]
    every = [step for piece in pieces for step in piece]
    steps = without_softmax(every)
    values = {id(source): images, id(masks): masks}
    done = 0
    for k, piece in enumerate(pieces):
        done += len(piece)
        now, rest = steps[done - len(piece) : done], steps[done:]
        graphs.run([switches.get(id(step), step) for step in now], values)
        for x in [*graphs.reads(rest), *chain.graph.outputs]:
            # What has no row for each image, such as switches, carries none.
            carries = x.shape[:1] == source.shape[:1] and "float" in x.dtype
            if carries and id(x) in values:
                gate = _Gate(k, dtype=x.dtype)
                values[id(x)] = gate([values[id(x)], masks])
    logits = values[id(chain.graph.outputs[0])]
    return keras.Model([images, masks], logits), steps != every


def without_softmax(steps):
    """The steps of a classifier, its softmax taken away."""
    k = graphs.softmax_step(steps)
    if k is None:
        return steps
    return [*steps[:k], _before_softmax(steps[k]), *steps[k + 1 :]]


def _before_softmax(step):
    """The softmax of a classifier, replaced by what gives its logits."""
    layer = step.operation
    if graphs.is_softmax(layer):
        return graphs.alias(step.inputs[0], step.outputs[0])
    if isinstance(layer, keras.layers.Dense):
        return graphs.Step(_Logits(layer), step.args, {}, step.outputs)
    return step


class _Logits(keras.layers.Layer):
    """A dense layer without its activation."""

    def __init__(self, dense, **kwargs):
        super().__init__(dtype=dense.dtype_policy, **kwargs)
        self.dense = dense

    def call(self, x):
        x = ops.matmul(x, self.dense.kernel)
        return x if self.dense.bias is None else x + self.dense.bias


class _PathSwitch(keras.layers.Layer):
    """An addition whose error goes back one way only.

    Args:
        block: int. The column of the masks.
        shortcuts: int. How many of the tensors, the first ones, are shortcuts.
    """

    def __init__(self, block, shortcuts, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.block = block
        self.shortcuts = shortcuts

    def call(self, inputs):
        *tensors, masks = inputs
        tensors = [ops.cast(x, self.compute_dtype) for x in tensors]
        # The value is that of the whole block; only the error chooses a way.
        skip = _sum(tensors[: self.shortcuts])
        residual = _sum(tensors[self.shortcuts :])
        column = _column_of(masks, self.block, skip)
        return ops.stop_gradient(skip + residual) + ops.where(
            column == 0, _gradient_only(skip), _gradient_only(residual)
        )

    def compute_output_shape(self, input_shape):
        return input_shape[0]


class _Gate(keras.layers.Layer):
    """The identity, whose error is multiplied.

    Args:
        column: int. The column of the masks that holds the factor; where it
            is 0, the error passes as it is.
    """

    def __init__(self, column, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.column = column

    def call(self, inputs):
        x, masks = inputs
        factor = _column_of(masks, self.column, x)
        # Of a block that is passed by, the mask is 0 and the error stays.
        factor = ops.where(factor == 0, ops.ones_like(factor), factor)
        factor = ops.cast(factor, x.dtype)
        return ops.stop_gradient(x) + factor * _gradient_only(x)

    def compute_output_shape(self, input_shape):
        return input_shape[0]


def _column_of(masks, column, x):
    """A column of the masks, to be joined with a tensor image by image."""
    return ops.reshape(masks[:, column], [-1] + [1] * (len(x.shape) - 1))


def _sum(tensors):
    first, *others = tensors
    for x in others:
        first = first + x
    return first


def _gradient_only(x):
    """Zero, with the gradient of `x`."""
    return x - ops.stop_gradient(x)
