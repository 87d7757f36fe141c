"""The gradient by path length (Veit et al. 2016, section 5)."""

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
from keras_resfam.analysis.chain import check_blocks
from keras_resfam.analysis.data import (
    check_classifier,
    check_columns,
    images_and_labels,
)
from keras_resfam.analysis.finding import residual_chain
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
    """Measures how much of the gradient the paths of each length carry.

    The whole network runs forward in inference mode. In the backward pass, `k`
    random blocks pass the error on through their residual branches only, and
    all others through their shortcuts only (Veit et al. 2016, section 5 and
    figure 6). The norm of the gradient at the input is averaged over images
    and draws, which are new for each image. The contribution of the paths is
    this norm times the number of choices of `k` blocks.

    The gradients are scaled by powers of two in the backward pass, and norms
    are stored as logarithms, so that no length underflows.

    The loss is the cross-entropy of one image, computed from the logits. The
    norm is the L2 norm of its gradient by the input of the model. If the model
    normalizes images itself, the input has pixel values.

    Args:
        model: functional `keras.Model` with residual blocks that returns
            softmax probabilities or logits.
        x: array of images.
        y: array of labels: ints, or one-hot rows.
        lengths: int or sequence of ints, from 0 to the number of blocks.
            Defaults to `None`, all of them.
        samples: int or `"all"`. The number of draws for each image and length.
            `"all"` takes each choice of `k` blocks, in small networks.
            Defaults to `10`.
        batch_size: int. Defaults to `50`.
        seed: int, at least 0. The draws of a length depend on the seed and the
            length only. Defaults to `0`.
        verbose: 0 or 1. Whether a progress bar is shown. Defaults to `1`.

    Returns:
        A dict of arrays with one item per length: `length`, in blocks;
        `log10_paths`, of the number of choices; `log10_gradient`, of the mean
        norm (`-inf` without a gradient); `log10_contribution`, their sum; and
        `share`, of the contribution of all these lengths. A path is a choice
        of blocks here, even if a block joins several streams or is inside the
        branch of another. A choice of the inner block without the outer one is
        counted as a path, although no path of the network takes it
        (`path_lengths` does not count it).

    Raises:
        ValueError: If an argument is invalid, if the model is quantized, if a
            gradient is not finite at any scale, or if the model returns
            probabilities that are not from a softmax.

    Example:

    ```python
    result = gradient_by_path_length(model, x_test[:100], y_test[:100])
    effective_lengths(result)  # e.g. (5, 17)
    ```
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
    gradient.check_logits(images[:2])  # two are enough to see it
    n = gradient.blocks
    lengths = _checked_lengths(lengths, n)
    bar = keras.utils.Progbar(len(lengths), verbose=verbose)
    decay = _Decay()
    for k in lengths:
        # By seed and length only, so a study of fewer lengths draws the same.
        masks = _masks(n, k, len(images), samples, [seed, k])
        expected = decay.expected(k)
        logs = _log2_norms(
            gradient, images, labels, masks, expected, batch_size
        )
        # As in figure 6, the mean of the norms, not of their logarithms.
        decay.add(k, _log_mean(logs))
        bar.add(1)
    return _summary(n, lengths, [decay.known[k] for k in lengths])


def _checked_lengths(lengths, blocks):
    """Returns a sorted list of lengths, all of them for `None`."""
    lengths = range(blocks + 1) if lengths is None else lengths
    lengths = list(lengths) if is_iterable(lengths) else [lengths]
    fits = all(is_integer(k, 0) and k <= blocks for k in lengths)
    if not lengths or not fits:
        raise ValueError(
            f"`lengths` should be integers from 0 to {blocks}, the number of "
            f"blocks. Received: lengths={lengths}"
        )
    return sorted(set(lengths))


_SMALL = 2.0**-20  # a norm far above the smallest numbers of float32
_MOST_OF_A_GATE = 100  # largest exponent of the factor of a gate


class _Decay:
    """The log2 norms that were measured, and predictions of others."""

    def __init__(self):
        self.known = {}

    def add(self, length, log2_norm):
        self.known[length] = log2_norm

    def expected(self, length):
        # A length without a gradient, -inf, does not predict the next one.
        found = [(k, v) for k, v in self.known.items() if math.isfinite(v)]
        if not found:
            return 0.0
        last, norm = found[-1]
        if len(found) == 1:
            return norm
        before, previous = found[-2]
        # Norms decay about exponentially with the length (figure 6b).
        slope = (norm - previous) / (last - before)
        return norm + slope * (length - last)


def _log2_norms(gradient, images, labels, masks, expected, batch_size):
    """Returns the log2 norms at the input, one for each image and mask.

    The initial scale is that at which the expected norm is 1. It is changed if
    a norm is too small or not finite.
    """
    logs, exponent = [], round(-expected)
    for image_masks in masks:
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            batch = images[part], labels[part], image_masks[part]
            # The next batch starts with the scale of this one.
            found, exponent = _rescale_until_finite(gradient, batch, exponent)
            logs.append(found)
    return np.concatenate(logs)


def _rescale_until_finite(gradient, batch, exponent):
    """Returns the log2 norms of a batch, and the exponent of their scale.

    The scale is changed until the largest norm is not small. Numbers below the
    range of float32 do not affect it then. A norm is zero if it is zero at the
    largest scale at which all are finite.
    """
    # Each block on the path has a gate, and so does the loss. All masks of a
    # batch have the same number of ones.
    gates = 1 + np.count_nonzero(batch[-1][0])
    low, high = -_MOST_OF_A_GATE * gates, _MOST_OF_A_GATE * gates
    exponent, found = int(np.clip(exponent, low + 1, high - 1)), None
    while high - low > 1:
        norms = _norms(gradient(*batch, exponent))
        # Bisection: a norm that overflows is an upper bound of the scale, and a
        # small one a lower bound.
        if not np.all(np.isfinite(norms)):
            high = exponent
            exponent = (low + high) // 2
            continue
        found, low = (norms, exponent), exponent
        most = np.max(norms)
        if most >= _SMALL:
            break
        # The largest norm shows how far to go, unless it is zero.
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
    """Returns the log2 of the mean of numbers that are given by their log2."""
    # Relative to the largest, so that no power of two overflows.
    most = np.max(logs)
    if not np.isfinite(most):
        return float(most)
    return float(most + np.log2(np.mean(np.exp2(logs - most))))


def _masks(n, k, images, samples, entropy):
    """Yields masks of shape `(images, n)` with `k` ones in each row."""
    if samples == "all":
        for chosen in itertools.combinations(range(n), k):
            mask = np.zeros((images, n), "float32")
            mask[:, list(chosen)] = 1
            yield mask
        return
    random = np.random.default_rng(entropy)
    # There is only one choice of no block, and one of all blocks.
    for _ in range(samples if 0 < k < n else 1):
        # The blocks of the k lowest ranks. All choices are equally likely.
        ranks = random.random((images, n)).argsort(-1).argsort(-1)
        yield (ranks < k).astype("float32")


def _summary(n, lengths, log2_norms):
    # Python's integers do not overflow.
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
    """Returns the shortest range of path lengths with most of the gradient.

    Args:
        result: dict, as `gradient_by_path_length` returns it.
        mass: float in `(0, 1]`. The least share of the contribution that the
            range has. Defaults to `0.95`.

    Returns:
        A tuple `(first, last)` of lengths in blocks.

    Raises:
        ValueError: If `mass` is invalid, or if `result` has no gradient, or
            gaps between its lengths.
    """
    check_number("mass", mass, above=0, maximum=1)
    check_columns("result", result, ("length", "share"))
    lengths, total = result["length"], np.cumsum([0, *result["share"]])
    if np.any(np.diff(lengths) != 1):
        raise ValueError(
            "`result` should have lengths without gaps. "
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
    """The gradient by the input, on the paths through chosen blocks.

    It is called with images, integer labels and masks of shape
    `(images, blocks)`, and returns an array of the images' shape. If a mask is
    0, the block passes the error on through its shortcut only, and if it is 1,
    through its residual branches only. Each image has its own loss. The result
    is multiplied by `2**exponent`. The loss and the gates after the chosen
    blocks have equal shares of this factor.

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
        """Checks that a model without a softmax in its graph returns logits."""
        if self._softmax_found:
            return
        masks = _scaled_masks(np.zeros((len(images), self.blocks)), 0)
        outputs = self._gated(self._inputs(images, masks), training=False)
        outputs = ops.convert_to_numpy(outputs)
        if are_probabilities(outputs):
            raise ValueError(
                "`model` should end in a softmax layer or return logits. Its "
                "outputs are probabilities, but its graph has no softmax. "
                f"Received: model with the outputs {outputs}"
            )


def check_floats(graph):
    """Checks that a model is not quantized: integers have no gradients."""
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
    """Returns masks times powers of two, with a last column for the loss.

    The exponents in a row are about equal, and their sum is `exponent`.
    """
    masks = np.asarray(masks, "float64")
    gates = np.concatenate([masks, np.ones((len(masks), 1))], axis=1)
    # The first gates take the remainder, so that the sum is exact.
    rank = np.cumsum(gates, axis=1)
    share, more = np.divmod(exponent, rank[:, -1:])
    return gates * np.exp2(share + (rank <= more))


def _cross_entropy(logits, labels):
    """Returns the sum over images, so each has the gradient of its own loss."""
    return ops.sum(
        keras.losses.sparse_categorical_crossentropy(
            labels, logits, from_logits=True
        )
    )


def _with_path_switches(chain):
    """Builds a model of the logits, with switches and gates.

    Residual additions are replaced by switches, and gates follow the blocks.
    The masks are a second input, with one column for each block and one for the
    loss. A gate multiplies the error of all tensors that are read after its
    block, so that each path goes through it once, even one that bypasses the
    addition of the block.

    Returns:
        A pair: the `keras.Model`, and whether a softmax was removed.
    """
    (source,) = chain.graph.inputs
    # Integers, such as uint8 images, have no gradients.
    floats = "float" in source.dtype
    images = keras.Input(
        batch_shape=source.shape,
        dtype=source.dtype if floats else keras.config.floatx(),
    )
    # The powers of two exceed the range of float16.
    masks = keras.Input((len(chain.units) + 1,), dtype="float32")
    switches = {}
    for k, unit in enumerate(chain.units):
        for join in unit.joins:
            skips = join.added(join.shortcuts)
            switch = _PathSwitch(
                k, len(skips), dtype=join.step.outputs[0].dtype
            )
            # The switch takes the shortcuts first.
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
            # Tensors without a batch axis, such as links, carry no error.
            carries = x.shape[:1] == source.shape[:1] and "float" in x.dtype
            if carries and id(x) in values:
                gate = _Gate(k, dtype=x.dtype)
                values[id(x)] = gate([values[id(x)], masks])
    logits = values[id(chain.graph.outputs[0])]
    return keras.Model([images, masks], logits), steps != every


def without_softmax(steps):
    """Returns the steps of a classifier without its softmax."""
    k = graphs.softmax_step(steps)
    if k is None:
        return steps
    return [*steps[:k], _before_softmax(steps[k]), *steps[k + 1 :]]


def _before_softmax(step):
    """Returns a step that computes the inputs of a step's softmax."""
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
    """An addition that passes the error on to shortcuts or branches only.

    Args:
        block: int. The column of the masks.
        shortcuts: int. The number of shortcuts, the first of the tensors.
    """

    def __init__(self, block, shortcuts, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.block = block
        self.shortcuts = shortcuts

    def call(self, inputs):
        *tensors, masks = inputs
        tensors = [ops.cast(x, self.compute_dtype) for x in tensors]
        # The value is that of the whole block. Only the error is switched.
        skip = _sum(tensors[: self.shortcuts])
        residual = _sum(tensors[self.shortcuts :])
        column = _column_of(masks, self.block, skip)
        return ops.stop_gradient(skip + residual) + ops.where(
            column == 0, _gradient_only(skip), _gradient_only(residual)
        )

    def compute_output_shape(self, input_shape):
        return input_shape[0]


class _Gate(keras.layers.Layer):
    """An identity that multiplies the error.

    Args:
        column: int. The column of the masks that has the factor. If it is 0,
            the error passes unchanged.
    """

    def __init__(self, column, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.column = column

    def call(self, inputs):
        x, masks = inputs
        factor = _column_of(masks, self.column, x)
        # The mask is 0 if the path takes the shortcut of the block.
        factor = ops.where(factor == 0, ops.ones_like(factor), factor)
        factor = ops.cast(factor, x.dtype)
        return ops.stop_gradient(x) + factor * _gradient_only(x)

    def compute_output_shape(self, input_shape):
        return input_shape[0]


def _column_of(masks, column, x):
    """Returns a column of the masks, in a shape that broadcasts with `x`."""
    return ops.reshape(masks[:, column], [-1] + [1] * (len(x.shape) - 1))


def _sum(tensors):
    first, *others = tensors
    for x in others:
        first = first + x
    return first


def _gradient_only(x):
    """Returns zeros that have the gradient of `x`."""
    return x - ops.stop_gradient(x)
