"""Networks as functions of somebody's tensors, by the names that they give.

Written after what the projects document, to compare with: nothing here is
taken from `keras_resfam`.
"""

import torch
from torch.nn import functional

XTERNALZ = {
    "stem": "conv1",
    "end_bn": "bn1",
    "conv": "block{s}.layer.{b0}.conv{i}",
    "bn": "block{s}.layer.{b0}.bn{i}",
    "skip": "block{s}.layer.{b0}.convShortcut",
    "top": "fc",
}
PYTORCHCV_WRN = {
    "stem": "features.init_block",
    "end_bn": "features.post_activ.bn",
    "conv": "features.stage{s}.unit{b}.body.conv{i}.conv",
    "bn": "features.stage{s}.unit{b}.body.conv{i}.bn",
    "skip": "features.stage{s}.unit{b}.identity_conv",
    "top": "output",
}
PYTORCHCV_RESNET = {
    "stem": "features.init_block.conv",
    "stem_bn": "features.init_block.bn",
    "conv": "features.stage{s}.unit{b}.body.conv{i}.conv",
    "bn": "features.stage{s}.unit{b}.body.conv{i}.bn",
    "skip": "features.stage{s}.unit{b}.identity_conv.conv",
    "skip_bn": "features.stage{s}.unit{b}.identity_conv.bn",
    "top": "output",
}
CHENYAOFO = {
    "stem": "conv1",
    "stem_bn": "bn1",
    "conv": "layer{s}.{b0}.conv{i}",
    "bn": "layer{s}.{b0}.bn{i}",
    "skip": "layer{s}.{b0}.downsample.0",
    "skip_bn": "layer{s}.{b0}.downsample.1",
    "top": "fc",
}
KUANGLIU = CHENYAOFO | {
    "skip": "layer{s}.{b0}.shortcut.0",
    "skip_bn": "layer{s}.{b0}.shortcut.1",
    "top": "linear",
}
TRANSFORMERS = {
    "stem": "resnet.embedder.embedder.convolution",
    "stem_bn": "resnet.embedder.embedder.normalization",
    "conv": "resnet.encoder.stages.{s0}.layers.{b0}.layer.{i0}.convolution",
    "bn": "resnet.encoder.stages.{s0}.layers.{b0}.layer.{i0}.normalization",
    "skip": "resnet.encoder.stages.{s0}.layers.{b0}.shortcut.convolution",
    "skip_bn": "resnet.encoder.stages.{s0}.layers.{b0}.shortcut.normalization",
    "top": "classifier.1",
}


class Tensors:
    """A state dict that a network asks for tensors, which are drawn if new.

    Args:
        names: dict from what a tensor is for to what it is called.
        seed: int.
    """

    def __init__(self, names, seed=0):
        self.names = names
        self.state = {}
        self.draw = torch.Generator().manual_seed(seed)

    def get(self, role, part, shape, place):
        s, b, i = place
        numbers = {"s": s, "s0": s - 1, "b": b, "b0": b - 1}
        name = self.names[role].format(**numbers, i=i, i0=i - 1)
        key = f"{name}.{part}"
        if key not in self.state:
            noise = torch.randn(shape, generator=self.draw)
            if len(shape) > 1:
                noise *= (1.5 / noise[0].numel()) ** 0.5
            elif part == "running_var" or (part == "weight"):
                noise = (noise / 4).exp()
            else:
                noise = noise / 4
            self.state[key] = noise
        return self.state[key]

    def conv(self, x, role, filters, size, stride, place=(0, 0, 0)):
        shape = (filters, x.shape[1], size, size)
        kernel = self.get(role, "weight", shape, place)
        return functional.conv2d(x, kernel, stride=stride, padding=size // 2)

    def bn(self, x, role, place=(0, 0, 0)):
        parts = ("running_mean", "running_var", "weight", "bias")
        values = [self.get(role, k, x.shape[1:2], place) for k in parts]
        return functional.batch_norm(x, *values, eps=1e-5)

    def top(self, x, classes):
        x = x.mean((2, 3))
        weight = self.get("top", "weight", (classes, x.shape[1]), (0, 0, 0))
        bias = self.get("top", "bias", (classes,), (0, 0, 0))
        return functional.linear(x, weight, bias)


def wide_resnet(tensors, x, blocks, width, classes=10):
    """BN and ReLU before each of the two convolutions of a block."""
    x = tensors.conv(x, "stem", 16, 3, 1)
    for s, filters in enumerate((16 * width, 32 * width, 64 * width), 1):
        for b in range(1, blocks + 1):
            stride = 2 if s > 1 and b == 1 else 1
            y = tensors.bn(x, "bn", (s, b, 1)).relu()
            if x.shape[1] != filters:
                x = tensors.conv(y, "skip", filters, 1, stride, (s, b, 0))
            y = tensors.conv(y, "conv", filters, 3, stride, (s, b, 1))
            y = tensors.bn(y, "bn", (s, b, 2)).relu()
            x = x + tensors.conv(y, "conv", filters, 3, 1, (s, b, 2))
    return tensors.top(tensors.bn(x, "end_bn").relu(), classes)


def resnet(tensors, x, blocks, filters, classes=10, imagenet=False):
    """BN behind the convolutions, ReLU behind the sum; basic blocks."""
    first = (64, 7, 2) if imagenet else (filters[0], 3, 1)
    x = tensors.bn(tensors.conv(x, "stem", *first), "stem_bn").relu()
    if imagenet:
        x = functional.max_pool2d(x, 3, 2, 1)
    for s, (count, width) in enumerate(zip(blocks, filters, strict=True), 1):
        for b in range(1, count + 1):
            stride = 2 if s > 1 and b == 1 else 1
            y = tensors.conv(x, "conv", width, 3, stride, (s, b, 1))
            y = tensors.bn(y, "bn", (s, b, 1)).relu()
            y = tensors.conv(y, "conv", width, 3, 1, (s, b, 2))
            y = tensors.bn(y, "bn", (s, b, 2))
            if x.shape[1] != width:
                x = tensors.conv(x, "skip", width, 1, stride, (s, b, 0))
                x = tensors.bn(x, "skip_bn", (s, b, 0))
            x = (x + y).relu()
    return tensors.top(x, classes)
