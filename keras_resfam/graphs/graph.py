"""Represents the graph of a functional model as data, and runs it."""

import collections
import dataclasses
import functools
import inspect

import keras


@dataclasses.dataclass(eq=False)
class Step:
    """One call of an operation (a layer or an op of `keras.ops`).

    The tensors in `args` and `kwargs`, and the `outputs`, are KerasTensors.
    They only serve as names: two steps are connected if a tensor has the same
    `id`.
    """

    operation: object
    args: tuple
    kwargs: dict
    outputs: list

    @functools.cached_property  # Keras flattens structures slowly
    def inputs(self):
        return _tensors_in((self.args, self.kwargs))

    @property
    def name(self):
        return self.operation.name


@dataclasses.dataclass(eq=False)
class Graph:
    """The steps of a model, in an order in which they can run."""

    inputs: list
    outputs: list
    steps: list
    name: str


def _tensors_in(structure):
    """Returns the KerasTensors of a nested structure, in order."""
    leaves = keras.tree.flatten(structure)
    return [x for x in leaves if isinstance(x, keras.KerasTensor)]


def readers(graph):
    """Counts how often each tensor is read, by `id`.

    An output of the graph counts as read once more.
    """
    read = [x for step in graph.steps for x in step.inputs]
    return collections.Counter(id(x) for x in [*graph.outputs, *read])


def read(model, like=None):
    """Reads the graph of a functional model.

    Args:
        model: functional `keras.Model`. It is not changed. The steps refer
            to its layers.
        like: list of KerasTensors, one for each input. The graph is read for
            inputs of their shapes and types. Defaults to `None`, the shapes
            and types of the model.

    Returns:
        A `Graph`.
    """
    return _read(shell(model), like)


def _read(view, like):
    """Reads the graph of a model that is not compiled."""
    steps, stand_ins = [], {}
    if like is not None:
        inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in like]
        like = keras.tree.pack_sequence_as(view.input, inputs)

    def record(operation, *args, **kwargs):
        stand_in = stand_ins.setdefault(id(operation), _StandIn(operation))
        outputs = stand_in(*args, **kwargs)
        step = Step(operation, args, kwargs, _tensors_in(outputs))
        steps.append(step)
        return outputs

    clone = keras.models.clone_model(
        view, like, clone_function=lambda layer: layer, call_function=record
    )
    return Graph(clone.inputs, clone.outputs, steps, view.name)


class _StandIn(keras.Operation):
    """Stands in for an operation, to which a call would add a node.

    Args:
        operation: layer or op of `keras.ops`.
    """

    def __init__(self, operation):
        super().__init__(name=operation.name)
        self.operation = operation

    def compute_output_spec(self, *args, **kwargs):
        return self.operation.compute_output_spec(*args, **kwargs)


def shell(model):
    """Returns a functional model of the same layers that is not compiled.

    `clone_model` would copy the compiled state.
    """
    inputs, outputs = model.inputs, model.outputs
    if not isinstance(model, keras.Sequential):
        inputs, outputs = model.input, model.output
    elif len(outputs) == 1:
        inputs, outputs = inputs[0], outputs[0]
    return keras.Model(inputs, outputs, name=model.name)


def is_graph(layer):
    """Returns whether a layer is a functional or sequential model.

    Subclasses that override `call` are not.
    """
    if not isinstance(layer, keras.Model):
        return False
    if isinstance(layer, keras.Sequential):
        return type(layer).call is keras.Sequential.call
    return hasattr(layer, "operations") and (
        type(layer).call is _functional_call()
    )


@functools.cache
def _functional_call():
    """Returns `call` of functional models, whose class has no public name."""
    image = keras.Input((1,), name="image")
    return type(keras.Model(image, image, name="functional")).call


def layers_within(model):
    """Yields the layers of a model, including those of nested models."""
    for layer in model.layers:
        yield layer
        if is_graph(layer):
            yield from layers_within(layer)


def channel_axis(layers):
    """Returns the axis of the channels in the images of layers: 1 or -1.

    It is that of the first layer that has one, as convolutions do, whatever
    the data format was when it was built. If none has, it is Keras's default.
    """
    formats = [getattr(layer, "data_format", None) for layer in layers]
    known = [*filter(None, formats), keras.config.image_data_format()]
    return 1 if known[0] == "channels_first" else -1


def flat(graph):
    """Replaces the nested models of a graph by their steps.

    A nested model is, for instance, the backbone of a fine-tuned network.
    """
    names, steps = {}, []
    for step in graph.steps:
        (step,) = renamed([step], names)
        model = step.operation
        given = _inputs_of_model(model, step) if is_graph(model) else None
        if given is None or not _keeps_inputs(model, given):
            steps.append(step)
            continue
        given, casts = _cast(given, model.inputs)
        inner = flat(read(model, like=given))
        own = dict(zip(map(id, inner.inputs), given, strict=True))
        inner_steps = renamed(inner.steps, own)
        if step.kwargs.get("training") is not None:
            inner_steps = in_mode(inner_steps, step.kwargs["training"])
        steps += [*casts, *inner_steps]
        outputs = [own.get(id(x), x) for x in inner.outputs]
        names.update(zip(map(id, step.outputs), outputs, strict=True))
    outputs = [names.get(id(x), x) for x in graph.outputs]
    return dataclasses.replace(graph, outputs=outputs, steps=steps)


def _inputs_of_model(model, step):
    """Returns the tensors that a step passes to a model, in the model's order.

    A model with a list of inputs also takes a dict from their names.
    """
    first = step.args[0] if step.args else step.kwargs["inputs"]
    if isinstance(first, dict) and not isinstance(model.input, dict):
        return [first[x.name] for x in model.inputs]
    return step.inputs


def _cast(tensors, like):
    """Casts tensors to the types of others, as Keras does in mixed precision.

    Returns:
        A pair: the tensors, and the list of steps that cast them.
    """
    outputs, steps = [], []
    for x, own in zip(tensors, like, strict=True):
        if x.dtype != own.dtype:
            layer = keras.layers.Identity(dtype=own.dtype)
            y = keras.KerasTensor(x.shape, own.dtype)
            steps.append(Step(layer, (x,), {}, [y]))
            x = y
        outputs.append(x)
    return outputs, steps


def _keeps_inputs(model, tensors):
    """Returns whether a model changes neither type nor rank of its inputs."""

    def kind(x):
        is_float = keras.backend.is_float_dtype(x.dtype)
        return len(x.shape), "float" if is_float else x.dtype

    return list(map(kind, model.inputs)) == list(map(kind, tensors))


def renamed(steps, names):
    """Replaces input tensors of steps.

    Args:
        steps: list of `Step`.
        names: dict from the ids of tensors to the tensors that replace them.
    """

    def name(x):
        return names.get(id(x), x) if isinstance(x, keras.KerasTensor) else x

    return [
        dataclasses.replace(
            step,
            args=keras.tree.map_structure(name, step.args),
            kwargs=keras.tree.map_structure(name, step.kwargs),
        )
        if any(id(x) in names for x in step.inputs)
        else step
        for step in steps
    ]


def in_mode(steps, training):
    """Sets the `training` argument of steps that have it."""
    mode = {"training": training}
    return [
        dataclasses.replace(step, kwargs=step.kwargs | mode)
        if "training" in inspect.signature(step.operation.call).parameters
        else step
        for step in steps
    ]


def read_single(model, sizes=None):
    """Reads the flat graph of a model with one input and one output.

    Args:
        model: functional or sequential `keras.Model`. Nested models are
            replaced by their steps.
        sizes: tuple without the batch axis. Replaces sizes of `None` in the
            shape of the input. Defaults to `None`.

    Returns:
        A `Graph`.

    Raises:
        ValueError: If the model is of another kind, or if two layers have the
            same name.
    """
    if not is_graph(model) or not getattr(model, "inputs", None):
        raise ValueError(
            "`model` should be a functional Keras model (or a built "
            f"Sequential one). Received: model={model}"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "`model` should have one input and one output. Received: model="
            f"{model.name} with inputs={model.inputs}, outputs={model.outputs}"
        )
    (image,), (answer,) = model.inputs, model.outputs
    like = None
    if sizes is not None and len(sizes) == len(image.shape) - 1:
        pairs = zip(image.shape[1:], sizes, strict=True)
        shape = (image.shape[0], *(own or size for own, size in pairs))
        like = [keras.KerasTensor(shape, image.dtype)]
    graph = flat(_read(keras.Model(image, answer, name=model.name), like))
    # A nested model may have outputs that no layer reads.
    graph.steps = needed(graph.steps, graph.outputs)
    check_names(graph)
    return graph


def check_names(graph):
    """Checks that layers have different names, as Keras requires."""
    named = {}
    for step in graph.steps:
        if named.setdefault(step.name, step.operation) is not step.operation:
            raise ValueError(
                "The layers of `model` and of nested models should have "
                f"different names. Received: model={graph.name} with two "
                f"layers '{step.name}'"
            )


def fresh_input(graph):
    """Creates a new input like that of a graph with one input.

    Returns:
        A pair: the input, and the initial `values` of `run`.
    """
    (source,) = graph.inputs
    image = keras.Input(
        batch_shape=source.shape, dtype=source.dtype, name=source.name
    )
    return image, {id(source): image}


def run(steps, values):
    """Runs steps on tensors, which are symbolic or have data.

    Args:
        steps: list of `Step`.
        values: dict from the ids of KerasTensors to tensors. The outputs of
            the steps are added to it.
    """

    def value(x):
        return values[id(x)] if isinstance(x, keras.KerasTensor) else x

    for step in steps:
        args, kwargs = keras.tree.map_structure(value, (step.args, step.kwargs))
        outputs = keras.tree.flatten(step.operation(*args, **kwargs))
        for tensor, output in zip(step.outputs, outputs, strict=True):
            values[id(tensor)] = output


def run_on_inputs(steps, tensors):
    """Runs steps on new inputs, which replace tensors.

    Returns:
        A pair: the list of inputs, and the `values` of `run`.
    """
    values = {
        id(x): keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in tensors
    }
    inputs = list(values.values())
    run(steps, values)
    return inputs, values


def needed(steps, outputs):
    """Returns the steps that are needed to compute `outputs`."""
    wanted = {id(x) for x in outputs}
    kept = []
    for step in reversed(steps):
        if any(id(x) in wanted for x in step.outputs):
            kept.append(step)
            wanted.update(id(x) for x in step.inputs)
    return kept[::-1]


def only_for(graph, tensor, reader):
    """Returns the steps that are only needed by one reader of a tensor.

    Steps of layers that are called more than once are not included.

    Args:
        graph: `Graph`.
        tensor: KerasTensor. The output of the last of the steps.
        reader: `Step`. It reads the tensor. If other steps read it too, the
            result is empty.

    Returns:
        A list of `Step`, in order.
    """
    count = readers(graph)
    calls = collections.Counter(id(step.operation) for step in graph.steps)
    from_inside = collections.Counter(
        id(x) for x in reader.inputs if x is tensor
    )
    own = []
    for step in reversed(graph.steps):
        ends = [id(x) for x in step.outputs]
        if (
            any(from_inside[x] for x in ends)
            and all(from_inside[x] == count[x] for x in ends)
            and calls[id(step.operation)] == 1
        ):
            own.append(step)
            from_inside.update(id(x) for x in step.inputs)
    return own[::-1]


def part(steps, tensor, name):
    """Creates a model of the steps that compute a tensor.

    Without steps, it is an identity.

    Returns:
        A pair: the list of tensors that the steps read, and the `keras.Model`.
    """
    sources = reads(steps) or [tensor]
    inputs, values = run_on_inputs(steps, sources)
    inputs = inputs[0] if len(inputs) == 1 else inputs
    return sources, keras.Model(inputs, values[id(tensor)], name=name)


def reads(steps):
    """Returns the tensors, each once, that steps read but do not compute."""
    made = {id(x) for step in steps for x in step.outputs}
    outside = {
        id(x): x for step in steps for x in step.inputs if id(x) not in made
    }
    return list(outside.values())


def alias(source, target):
    """Returns a step that gives a tensor a second name."""
    return Step(same, (source,), {}, [target])


def same(x):
    """Returns its argument."""
    return x


def count_kernels(operation):
    """Counts the layers with kernels in an operation.

    The result is 0 or 1 for a layer, and may be larger for a model. A kernel is
    a weight of two or more dimensions, as in convolutions and dense layers.
    Such weights of activations and normalizations are not kernels.
    """
    others = keras.layers.PReLU, keras.layers.LayerNormalization
    if not isinstance(operation, keras.Layer) or isinstance(operation, others):
        return 0
    if isinstance(operation, keras.Model):
        return sum(count_kernels(layer) for layer in operation.layers)
    return int(any(len(w.shape) > 1 for w in operation.weights))


def is_addition(step):
    """Returns whether a step adds two or more different tensors."""
    different = {id(x) for x in step.inputs}
    return len(different) > 1 and is_a(step.operation, keras.layers.Add, "Add")


def is_a(operation, layer, name):
    """Returns whether an operation is of a class.

    Args:
        operation: layer or op of `keras.ops`.
        layer: class of layers.
        name: str. The name of the class of the op in `keras.ops`, which is not
            public.
    """
    if isinstance(operation, keras.Layer):
        return isinstance(operation, layer)
    return type(operation).__name__ == name
