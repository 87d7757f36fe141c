"""A functional model's graph as plain data, and how to run it again."""

import collections
import dataclasses
import functools
import inspect

import keras


@dataclasses.dataclass(eq=False)
class Step:
    """One call of an operation (a layer or an op of `keras.ops`).

    The tensors among `args` and `kwargs`, and the `outputs`, are KerasTensors:
    they serve as names, `id(tensor)` being the key.
    """

    operation: object
    args: tuple
    kwargs: dict
    outputs: list

    @functools.cached_property  # Keras walks slowly through structures
    def inputs(self):
        return _tensors_in((self.args, self.kwargs))

    @property
    def name(self):
        return self.operation.name


@dataclasses.dataclass(eq=False)
class Graph:
    """A model's steps, in an order in which they can be run."""

    inputs: list
    outputs: list
    steps: list
    name: str


def _tensors_in(structure):
    """The KerasTensors of a nested structure, in order."""
    leaves = keras.tree.flatten(structure)
    return [x for x in leaves if isinstance(x, keras.KerasTensor)]


def readers(graph):
    """How often each tensor is read, by `id`; as an output, once more."""
    read = [x for step in graph.steps for x in step.inputs]
    return collections.Counter(id(x) for x in [*graph.outputs, *read])


def read(model, like=None):
    """Reads the graph of a functional model.

    Args:
        model: functional `keras.Model`. It stays as it is; the steps refer to
            its layers.
        like: list of KerasTensors, one for each input, whose shapes the
            inputs take. Defaults to `None`, the model's own.

    Returns:
        A `Graph`.
    """
    return _read(shell(model), like)


def _read(view, like):
    """Reads a graph as `read` does, of a model without a compiled state."""
    steps, readings = [], {}
    if like is not None:
        inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in like]
        like = keras.tree.pack_sequence_as(view.input, inputs)

    def record(operation, *args, **kwargs):
        reading = readings.setdefault(id(operation), Reading(operation))
        outputs = reading(*args, **kwargs)
        step = Step(operation, args, kwargs, _tensors_in(outputs))
        steps.append(step)
        return outputs

    clone = keras.models.clone_model(
        view, like, clone_function=lambda layer: layer, call_function=record
    )
    return Graph(clone.inputs, clone.outputs, steps, view.name)


class Reading(keras.Operation):
    """Stands in for an operation, which is left without another node.

    Args:
        operation: layer or op of `keras.ops`.
    """

    def __init__(self, operation):
        super().__init__(name=operation.name)
        self.operation = operation

    def compute_output_spec(self, *args, **kwargs):
        return self.operation.compute_output_spec(*args, **kwargs)


def shell(model):
    """A functional model of the same layers.

    Without the compiled state, which `clone_model` would copy.
    """
    inputs, outputs = model.inputs, model.outputs
    if not isinstance(model, keras.Sequential):
        inputs, outputs = model.input, model.output
    elif len(outputs) == 1:
        inputs, outputs = inputs[0], outputs[0]
    return keras.Model(inputs, outputs, name=model.name)


def is_graph(layer):
    """Whether a layer is a functional or sequential model, and no more."""
    if not isinstance(layer, keras.Model):
        return False
    if isinstance(layer, keras.Sequential):
        return type(layer).call is keras.Sequential.call
    return hasattr(layer, "operations") and type(layer).call is _functional()


@functools.cache
def _functional():
    """What functional models, whose class has no public name, do in a call."""
    image = keras.Input((1,), name="image")
    return type(keras.Model(image, image, name="functional")).call


def layers_within(model):
    """Yields the layers of a model, and those of the models among them."""
    for layer in model.layers:
        yield layer
        if is_graph(layer):
            yield from layers_within(layer)


def flat(graph):
    """The graph with the steps of its models in the models' places.

    A model in a model is, for instance, the backbone of a fine-tuned network.
    """
    names, steps = {}, []
    for step in graph.steps:
        (step,) = renamed([step], names)
        model = step.operation
        given = _given_to(model, step) if is_graph(model) else None
        if given is None or not _takes_as_it_is(model, given):
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


def _given_to(model, step):
    """What a step gives to a model, in the order of the model's inputs.

    A model of a list of inputs takes them by their names as well.
    """
    first = step.args[0] if step.args else step.kwargs["inputs"]
    if isinstance(first, dict) and not isinstance(model.input, dict):
        return [first[x.name] for x in model.inputs]
    return step.inputs


def _cast(tensors, like):
    """Tensors in the types of others, and the steps that make them so.

    As Keras casts, in mixed precision, what a model is given.
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


def _takes_as_it_is(model, tensors):
    """Whether a model changes neither kind nor rank of what it is given."""

    def kind(x):
        is_float = keras.backend.is_float_dtype(x.dtype)
        return len(x.shape), "float" if is_float else x.dtype

    return list(map(kind, model.inputs)) == list(map(kind, tensors))


def renamed(steps, names):
    """The steps, taking other tensors for those whose ids are in `names`."""

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
    """The steps, called with the `training` that Keras would hand down."""
    mode = {"training": training}
    return [
        dataclasses.replace(step, kwargs=step.kwargs | mode)
        if "training" in inspect.signature(step.operation.call).parameters
        else step
        for step in steps
    ]


def read_single(model, sizes=None):
    """Reads the graph of a model with one tensor in and one out, flat.

    Args:
        model: functional or sequential `keras.Model`. Models among its layers
            are looked into.
        sizes: tuple without the batch axis, of data that the graph is read
            for: sizes that the model leaves open are these. Defaults to
            `None`.

    Raises:
        ValueError: If it is another, or if layers of one name come together.
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
    # A model among the layers may have outputs that nothing reads.
    graph.steps = needed(graph.steps, graph.outputs)
    check_names(graph)
    return graph


def check_names(graph):
    """Refuses layers of one name, which Keras would not build a model of."""
    named = {}
    for step in graph.steps:
        if named.setdefault(step.name, step.operation) is not step.operation:
            raise ValueError(
                "The layers of `model` and of the models among them should "
                f"have names of their own. Received: model={graph.name} with "
                f"two layers '{step.name}'"
            )


def fresh_input(graph):
    """A new input like a graph's only one, to build upon.

    Returns:
        The input, and the `values` that `run` begins with.
    """
    (source,) = graph.inputs
    image = keras.Input(
        batch_shape=source.shape, dtype=source.dtype, name=source.name
    )
    return image, {id(source): image}


def run(steps, values):
    """Runs steps on the tensors in `values`, symbolic ones or data.

    Args:
        steps: list of `Step`.
        values: dict from the ids of KerasTensors to tensors; what the steps
            make is added to it.
    """

    def value(x):
        return values[id(x)] if isinstance(x, keras.KerasTensor) else x

    for step in steps:
        args, kwargs = keras.tree.map_structure(value, (step.args, step.kwargs))
        outputs = keras.tree.flatten(step.operation(*args, **kwargs))
        for tensor, output in zip(step.outputs, outputs, strict=True):
            values[id(tensor)] = output


def run_anew(steps, tensors):
    """Runs steps on new inputs, one in the place of each tensor.

    Returns:
        The inputs, and the `values` as of `run`.
    """
    values = {
        id(x): keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in tensors
    }
    inputs = list(values.values())
    run(steps, values)
    return inputs, values


def needed(steps, outputs):
    """Those of the steps without which `outputs` cannot be made."""
    wanted = {id(x) for x in outputs}
    kept = []
    for step in reversed(steps):
        if any(id(x) in wanted for x in step.outputs):
            kept.append(step)
            wanted.update(id(x) for x in step.inputs)
    return kept[::-1]


def only_for(graph, tensor, reader):
    """The steps that nothing needs but one reader of one tensor.

    Those of layers that are called more than once are not among them.

    Args:
        graph: `Graph`.
        tensor: KerasTensor that the steps end in.
        reader: `Step` that reads it. If others do, there are no such steps.

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
    """Makes a model of steps that end in a tensor; of none, an identity.

    Returns:
        The tensors that it takes, and the `keras.Model`.
    """
    given = reads(steps) or [tensor]
    inputs, values = run_anew(steps, given)
    taken = inputs[0] if len(inputs) == 1 else inputs
    return given, keras.Model(taken, values[id(tensor)], name=name)


def reads(steps):
    """The tensors that steps take from outside, in order, each once."""
    made = {id(x) for step in steps for x in step.outputs}
    outside = {
        id(x): x for step in steps for x in step.inputs if id(x) not in made
    }
    return list(outside.values())


def alias(source, target):
    """A step that gives a tensor a second name."""
    return Step(same, (source,), {}, [target])


def same(x):
    return x


def count_kernels(operation):
    """How many layers with kernels an operation holds: 0 or 1; more in a model.

    A kernel is a weight of two or more dimensions, so that a convolution or a
    dense layer counts; an activation or a normalization with such weights
    does not.
    """
    others = keras.layers.PReLU, keras.layers.LayerNormalization
    if not isinstance(operation, keras.Layer) or isinstance(operation, others):
        return 0
    if isinstance(operation, keras.Model):
        return sum(count_kernels(layer) for layer in operation.layers)
    return int(any(len(w.shape) > 1 for w in operation.weights))


def is_addition(step):
    """Whether a step adds two or more different tensors."""
    different = {id(x) for x in step.inputs}
    return len(different) > 1 and is_a(step.operation, keras.layers.Add, "Add")


def is_a(operation, layer, name):
    """Whether an operation is a layer, or the op of `keras.ops` of that name.

    The classes behind `keras.ops` have no public names.
    """
    if isinstance(operation, keras.Layer):
        return isinstance(operation, layer)
    return type(operation).__name__ == name
