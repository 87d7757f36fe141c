"""Batch normalization that sums one image after another, on PyTorch.

For a sum over a batch with the channels last, PyTorch's compiler generates a
loop over all pixels for every few channels. Each loop is a pass over memory
that uses only a part of each cache line. If it sums one image at a time, the
second pass finds the lines in the cache.

This module imports PyTorch, so it is imported only where a network is compiled.
"""

import operator

import torch

from keras_resfam.backends.memory import channels_first, channels_last


class Normalization(torch.autograd.Function):
    """Normalizes each channel by the moments of the batch.

    The arguments are those of `torch.nn.functional.batch_norm`: `x` of shape
    `(batch, channels, height, width)`, and `gamma` and `beta` of shape
    `(channels,)`, in whose type it computes. It returns the outputs, and the
    mean and the unbiased variance of each channel, which have no gradients.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, epsilon):
        images = channels_last(x).to(gamma.dtype)
        count = images[..., 0].numel()
        within, means = torch.var_mean(images, (1, 2), correction=0)
        between, mean = torch.var_mean(means, 0, correction=0)
        variance = within.mean(0) + between
        inverse = torch.rsqrt(variance + epsilon)
        outputs = (images - mean) * (inverse * gamma) + beta
        unbiased = variance * (count / (count - 1))
        ctx.mark_non_differentiable(mean, unbiased)
        ctx.save_for_backward(x, gamma, mean, inverse)
        return channels_first(outputs.to(x.dtype)), mean, unbiased

    @staticmethod
    def backward(ctx, error, *_):
        x, gamma, mean, inverse = ctx.saved_tensors
        error = channels_last(error).to(gamma.dtype)
        normal = (channels_last(x).to(gamma.dtype) - mean) * inverse
        count = normal[..., 0].numel()
        by_beta = error.sum((1, 2)).sum(0)
        by_gamma = (error * normal).sum((1, 2)).sum(0)
        shared = (by_beta + normal * by_gamma) / count
        by_x = (error - shared) * (inverse * gamma)
        return channels_first(by_x.to(x.dtype)), by_gamma, by_beta, None


def normalize(x, gamma, beta, epsilon):
    """Calls `Normalization`, as a function that a graph can have."""
    return Normalization.apply(x, gamma, beta, epsilon)


def put_in(graph):
    """Replaces the batch normalizations of a graph that train on a CPU.

    Args:
        graph: `torch.fx.Graph`. It is changed.
    """
    for node in graph.find_nodes(
        op="call_function", target=torch.ops.aten.batch_norm.default
    ):
        x, gamma, beta, *moments, _, _, epsilon, _ = node.args
        if not _writes_moments(node) or x.meta["val"].device.type != "cpu":
            continue
        with graph.inserting_before(node):
            results = graph.call_function(normalize, (x, gamma, beta, epsilon))
            for index, replaced in enumerate((node, *moments)):
                result = graph.call_function(operator.getitem, (results, index))
                result.meta["val"] = replaced.meta["val"]
                replaced.replace_all_uses_with(result)
        for replaced in node, *moments:
            graph.erase_node(replaced)


def _writes_moments(node):
    """Returns whether a node is from `fused_batch_norm` in training."""
    _, _, _, *moments, training, momentum, _, _ = node.args
    zeros = torch.ops.aten.zeros_like.default
    return (
        training
        and momentum == 1.0
        and all(moment.target == zeros for moment in moments)
    )
