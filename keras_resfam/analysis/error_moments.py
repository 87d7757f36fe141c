"""The size of the backward error in each layer (Xie et al. 2017, figure 3)."""

import keras
from keras import ops

from keras_resfam import graphs
from keras_resfam._checks import as_array, check_flag
from keras_resfam.analysis.chain import Chain
from keras_resfam.analysis.data import check_classifier, images_and_labels
from keras_resfam.analysis.path_gradients import check_floats, without_softmax
from keras_resfam.backends.gradients import gradient, replace_gradient
from keras_resfam.backends.moments import second_moment
from keras_resfam.layers import GradientModulation

_CONVOLUTIONS = (
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
    *(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
)


def error_moments(model, x, y, *, modulated=False):
    """Measures the error of one batch at the output of each convolution.

    The error is the gradient of the mean cross-entropy, without penalties, in
    training mode: batch normalization uses the moments of the batch. The model
    and its moving averages are not changed.

    Args:
        model: functional `keras.Model` with convolutions that returns softmax
            probabilities or logits.
        x: array of images.
        y: array of labels: ints, or one-hot rows.
        modulated: bool. Whether the `GradientModulation` layers of the model
            act. Defaults to `False`.

    Returns:
        A dict from the names of the convolutions, the lowest first, to the
        second moments (mean squares) of the errors, as floats. If a layer is
        called several times, it is the sum over the calls.

    Raises:
        ValueError: If the model has no convolutions, is quantized, or returns
            something other than softmax probabilities or logits; or if the
            images or labels do not fit it.

    Example:

    ```python
    moments = list(error_moments(model, x_train[:128], y_train[:128]).values())
    moments[-1] / moments[0]  # the paper's figure 3
    ```
    """
    check_flag("modulated", modulated)
    graph = graphs.read_single(model, as_array("x", x).shape[1:])
    chain = Chain(graph, [], [])
    check_classifier(chain)
    check_floats(graph)
    images, labels = images_and_labels(x, y, model, chain)
    steps = [_in_training(step, modulated) for step in graph.steps]
    steps = without_softmax(steps)
    # Each name once, in the order of the first calls.
    names = dict.fromkeys(
        s.name for s in steps if isinstance(s.operation, _CONVOLUTIONS)
    )
    if not names:
        raise ValueError(
            f"`model` should have convolutions. Received: model={graph.name}"
        )
    position = {name: k for k, name in enumerate(names)}
    (source,), (target,) = graph.inputs, graph.outputs
    images = ops.convert_to_tensor(images, source.dtype)
    labels = ops.convert_to_tensor(labels, "int32")

    def loss(probes):
        values = {id(source): images}
        for step in steps:
            graphs.run([step], values)
            if isinstance(step.operation, _CONVOLUTIONS):
                (output,) = step.outputs
                probe = probes[position[step.name]]
                values[id(output)] = _probed(values[id(output)], probe)
        return ops.mean(
            keras.losses.sparse_categorical_crossentropy(
                labels,
                ops.cast(values[id(target)], "float32"),
                from_logits=True,
            )
        )

    moments = gradient(loss, ops.zeros(len(names), "float32"))
    moments = ops.convert_to_numpy(moments).tolist()
    return dict(zip(names, moments, strict=True))


def _in_training(step, modulated):
    modulation = isinstance(step.operation, GradientModulation)
    return graphs.in_mode([step], modulated or not modulation)[0]


def _probed(x, probe):
    """Returns `x`, and makes the error's second moment the gradient of `probe`.

    `probe` is a scalar.
    """
    return replace_gradient(
        lambda error, _: (error, second_moment(error)), x, probe
    )[0]
