"""Changes a recorded graph before PyTorch compiles it.

Each function changes a `torch.fx.Graph` in place. The results of the graph stay
the same, up to rounding.
"""

from keras_resfam.backends.convolution import takes_pixels_first
from keras_resfam.backends.gradients import torch_identity, torch_mark


def leave_out_checks(graph):
    """Removes the checks of types that torch.export has recorded.

    They count as uses of a tensor. PyTorch's compiler writes tensors with two
    uses to memory, such as the outputs of each batch normalization.

    Args:
        graph: `torch.fx.Graph`. It is changed.
    """
    import torch

    check = torch.ops.aten._assert_tensor_metadata.default
    for node in graph.find_nodes(op="call_function", target=check):
        graph.erase_node(node)


def take_pixels_first(graph):
    """Applies the strides of 1x1 convolutions with few channels before them.

    The gradient of such strided convolutions, which Keras's own layers record,
    writes to memory out of bounds.

    Args:
        graph: `torch.fx.Graph`. It is changed.
    """
    import torch

    aten = torch.ops.aten
    convolutions = graph.find_nodes(
        op="call_function", target=aten.conv2d.default
    )
    for node in convolutions:
        x, kernel, bias, strides, padding, *rest = _all_arguments(node)
        filters_last = kernel.meta["val"].permute(2, 3, 1, 0)
        if any(padding) or not takes_pixels_first(filters_last, strides):
            continue
        with graph.inserting_before(node):
            for axis, stride in zip((2, 3), strides, strict=True):
                end = x.meta["val"].shape[axis]
                x = added(aten.slice.Tensor, x, axis, 0, end, stride)
        node.args = x, kernel, bias, [1, 1], padding, *rest


def _all_arguments(node):
    """Returns the arguments of a node, including those with defaults."""
    omitted = node.target._schema.arguments[len(node.args) :]
    return [*node.args, *(argument.default_value for argument in omitted)]


def permute_first(graph):
    """Moves permutations of axes before elementwise operations.

    The results are the same, but adjacent permutations cancel. PyTorch's
    compiler fuses fewer operations if images alternate between channels first
    and channels last. It also writes casted tensors in the order of their axes,
    so a kernel, which has another order in memory, would be permuted twice.

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
        elif _is_elementwise(source):
            todo += [node, *_permute_inputs(source, axes, back)]
    graph.eliminate_dead_code()


def _permute_inputs(node, axes, back):
    """Permutes the inputs of a node, and permutes its output back.

    Returns:
        The new nodes that permute the inputs.
    """
    graph = node.graph
    with graph.inserting_before(node):
        inputs = {
            x: _permuted(x, axes)
            for x in node.all_input_nodes
            if x.meta["val"].ndim
        }
        twin = graph.node_copy(node, lambda x: inputs.get(x, x))
        twin.meta["val"] = node.meta["val"].permute(axes)
        node.replace_all_uses_with(_permuted(twin, back))
    graph.erase_node(node)
    return inputs.values()


def _permuted(node, axes):
    """Adds a permutation of a node's output to its graph."""
    import torch

    return added(torch.ops.aten.permute.default, node, axes)


def added(operation, node, *arguments):
    """Adds an operation on a node's output to its graph."""
    result = node.graph.call_function(operation, (node, *arguments))
    result.meta["val"] = operation(node.meta["val"], *arguments)
    return result


def _is_elementwise(node):
    """Returns whether a node is an elementwise operation.

    Its tensors have to have the same rank, except for scalars.
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
    """Replaces the marks of `replace_gradient` by the custom gradients.

    Args:
        graph: `torch.fx.Graph`. It is changed.
        backwards: list of callables. The backward functions, which `recorded`
            yields.
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
