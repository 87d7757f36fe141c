"""The networks of the benchmark in plain PyTorch."""

import functools
import importlib.metadata

import torch
from torch import nn

# The builders of the ImageNet forms, as torchvision and timm name them.
IMAGENET = {"ResNet50": "resnet50", "WideResNet50_2": "wide_resnet50_2"}


def versions():
    """Returns the versions of the libraries of networks that are installed."""
    found = {}
    for name in ("pytorchcv", "torchvision", "timm"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def pytorch_network(builder, arguments):
    """Returns a network, or `None` where there is no like.

    It takes images of shape `(batch, 3, height, width)` and returns logits of
    10 classes. The ImageNet forms are torchvision's, with 1000 classes.
    """
    if builder in IMAGENET:
        import_torchvision()
        import torchvision

        return getattr(torchvision.models, IMAGENET[builder])()
    if builder == "DMRNet":
        return DMRNet(arguments["depth"])
    if builder == "WideResNet":
        from pytorchcv.models.wrn_cifar import get_wrn_cifar

        return get_wrn_cifar(
            num_classes=10,
            blocks=arguments["depth"],
            width_factor=arguments["width"],
        )
    if builder == "ResNet":
        from pytorchcv.models.resnet_cifar import get_resnet_cifar

        return get_resnet_cifar(
            num_classes=10, blocks=arguments["depth"], bottleneck=False
        )
    return None


def timm_network(builder, arguments):
    """Returns timm's network, or `None` where there is no like."""
    if builder not in IMAGENET:
        return None
    import_torchvision()
    import timm

    return timm.create_model(IMAGENET[builder])


@functools.cache
def import_torchvision():
    """Imports torchvision, also beside a torch that it was not built for.

    PyPI's torchvision is built for CUDA. Beside a torch for CPUs some operators
    are missing that no classifier needs: to declare them is enough.

    Returns:
        What has to stay alive.
    """
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(
                f"{name}(Tensor dets, Tensor scores, float iou_threshold) "
                "-> Tensor"
            )
        import torchvision

        return library
    return torchvision


class DMRNet(nn.Module):
    """The graph of `keras_resfam.DMRNet`, two branches, in plain PyTorch.

    Its modules have the names of the Keras layers, with a dot for `_` where
    a block or a branch ends.
    """

    def __init__(self, depth):
        super().__init__()
        blocks = (depth - 2) // 6
        self.stem_conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16)
        self.blocks = nn.ModuleDict()
        channels = 16
        for stage, filters in enumerate((16, 32, 64), start=1):
            for block in range(1, blocks + 1):
                strides = 2 if stage > 1 and block == 1 else 1
                self.blocks[f"stage{stage}_block{block}"] = Block(
                    channels, filters, strides
                )
                channels = filters
        self.predictions = nn.Linear(channels, 10)

    def forward(self, x):
        x = torch.relu(self.stem_bn(self.stem_conv(x)))
        streams = [x, x]
        *blocks, last = self.blocks.values()
        for block in blocks:
            h1, h2, mean = block(*streams)
            streams = [torch.relu(h1 + mean), torch.relu(h2 + mean)]
        h1, h2, mean = last(*streams)
        x = torch.relu(h1 + h2 + mean)
        return self.predictions(x.mean((2, 3)))


class Block(nn.Module):
    """Returns the residuals of both streams, and the mean of their skips."""

    def __init__(self, channels, filters, strides):
        super().__init__()
        self.branch1 = Branch(channels, filters, strides)
        self.branch2 = Branch(channels, filters, strides)

    def forward(self, x1, x2):
        h1, skip1 = self.branch1(x1)
        h2, skip2 = self.branch2(x2)
        return h1, h2, skip1 if skip1 is skip2 else (skip1 + skip2) / 2


class Branch(nn.Module):
    """Returns H(x), and x itself or its projection."""

    def __init__(self, channels, filters, strides):
        super().__init__()
        self.conv1 = nn.Conv2d(
            channels, filters, 3, strides, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.projects = strides > 1 or channels != filters
        if self.projects:
            self.shortcut_conv = nn.Conv2d(
                channels, filters, 1, strides, bias=False
            )
            self.shortcut_bn = nn.BatchNorm2d(filters)

    def forward(self, x):
        h = torch.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        if self.projects:
            x = self.shortcut_bn(self.shortcut_conv(x))
        return h, x
