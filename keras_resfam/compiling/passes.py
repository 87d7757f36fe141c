"""Changes to a recorded graph, before PyTorch compiles it.

Each takes a `torch.fx.Graph` and changes it. What it computes stays the same,
up to rounding.
"""

from keras_resfam.backends.convolution import takes_pixels_first
from keras_resfam.backends.gradients import torch_identity, torch_mark


def leave_out_checks(graph):
    """Leaves out torch.export's checks of the types that it has recorded.

    They count as uses, and what is used twice PyTorch's compiler writes to
    memory: of each batch normalization the outputs.

    Args:
        graph: `torch.fx.Graph`. It is changed.
    """
    import torch

    check = torch.ops.aten._assert_tensor_metadata.default
    for node in graph.find_nodes(op="call_function", target=check):
        graph.erase_node(node)


def take_pixels_first(graph):
    """Skips pixels before thin 1 x 1 convolutions, instead of in them.

    Keras's own layers record strides there, whose gradient damages memory.

    Args:
        graph: `torch.fx.Graph`. It is changed.
    """
    import torch

    aten = torch.ops.aten
    convolutions = graph.find_nodes(
        op="call_function", target=aten.conv2d.default
    )
    for node in convolutions:
        x, kernel, bias, strides, padding, *rest = complete(node)
        filters_last = kernel.meta["val"].permute(2, 3, 1, 0)
        if any(padding) or not takes_pixels_first(filters_last, strides):
            continue
        with graph.inserting_before(node):
            for axis, stride in zip((2, 3), strides, strict=True):
                end = x.meta["val"].shape[axis]
                x = added(aten.slice.Tensor, x, axis, 0, end, stride)
        node.args = x, kernel, bias, [1, 1], padding, *rest


def complete(node):
    """A node's arguments, also those that it leaves at their defaults."""
    omitted = node.target._schema.arguments[len(node.args) :]
    return [*node.args, *(argument.default_value for argument in omitted)]


def permute_first(graph):
    """Has a program permute axes before what it does element by element.

    The outcome is the same, but permutations meet there, and cancel. PyTorch's
    compiler fuses less where images have their channels now last and now
    first, and what it casts it writes in the order of the axes, so that a
    kernel, which lies in another, would be turned twice.

    Args:
        graph: `torch.fx.Graph`. It is changed.
    """
    import torch

    permute = torch.ops.aten.permute.default
    todo = graph.find_nodes(op="call_function", target=permute)
    while todo:
        node = todo.pop()
        source, axes = node.args
        axes = [axis % len(axes) for axis in axes]
        back = [axes.index(axis) for axis in range(len(axes))]
        if source.target == permute and source.args[1] == back:
            node.replace_all_uses_with(source.args[0])
        elif _works_by_element(source):
            todo += [node, *_permute_inputs(source, axes, back)]
    graph.eliminate_dead_code()


def _permute_inputs(node, axes, back):
    """Permutes what a node takes, and what it gives back again.

    Returns:
        The permutations of what it takes.
    """
    graph = node.graph
    with graph.inserting_before(node):
        inputs = {
            x: permuted(x, axes)
            for x in node.all_input_nodes
            if x.meta["val"].ndim
        }
        twin = graph.node_copy(node, lambda x: inputs.get(x, x))
        twin.meta["val"] = node.meta["val"].permute(axes)
        node.replace_all_uses_with(permuted(twin, back))
    graph.erase_node(node)
    return inputs.values()


def permuted(node, axes):
    """Adds the permutation of a node to its graph."""
    import torch

    return added(torch.ops.aten.permute.default, node, axes)


def added(operation, node, *arguments):
    """Adds an operation on a node to its graph."""
    result = node.graph.call_function(operation, (node, *arguments))
    result.meta["val"] = operation(node.meta["val"], *arguments)
    return result


def _works_by_element(node):
    """Whether a node does the same to all elements of tensors of one rank.

    Scalars may be among the tensors.
    """
    import torch

    aten = torch.ops.aten
    values = [x.meta.get("val") for x in node.all_input_nodes]
    return (
        node.target
        in {
            aten.add.Tensor,
            aten.div.Tensor,
            aten.mul.Tensor,
            aten.relu.default,
            aten.sub.Tensor,
            aten.to.dtype,
            aten.to.dtype_layout,
        }
        and all(isinstance(value, torch.Tensor) for value in values)
        and len({value.ndim for value in values} - {0}) == 1
    )


def put_back_gradients(graph, backwards):
    """Replaces the marks in a recorded graph by identities with gradients.

    Args:
        graph: `torch.fx.Graph`. It is changed.
        backwards: list of callables, that of `recorded`.
    """
    for node in graph.find_nodes(op="call_function", target=torch_mark()):
        tensors, index = node.args
        with graph.inserting_before(node):
            identity = graph.call_function(
                _identity_with(backwards[index]), tuple(tensors)
            )
        node.replace_all_uses_with(identity)
        graph.erase_node(node)


def _identity_with(backward):
    apply = torch_identity().apply

    def identity(*tensors):
        return apply(backward, *tensors)

    return identity
