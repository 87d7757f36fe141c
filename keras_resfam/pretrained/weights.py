"""Verified weights, which are loaded into a network by layer name."""

import contextlib
import dataclasses

from keras_resfam.datasets import DATASETS
from keras_resfam.pretrained import dialects, fingerprint, hdf5
from keras_resfam.pretrained.channels import RGB, adapt_kernel, adapt_moments


@dataclasses.dataclass(frozen=True)
class Source:
    """Verified weights, ready to be loaded.

    Attributes:
        where: str. Names the weights in error messages.
        layers: dict from layer names to lists of arrays.
        dataset: str. The data set that they were trained on, or `None` if it
            is unknown.
        preprocessing: str or tuple. The channel moments by which the network
            normalizes images: the name of a data set, or a pair of tuples,
            the means and the standard deviations of pixels in 0..255. `None`
            if they are unknown.
        input_shape: tuple. `(height, width, channels)`, or `None` if it is
            unknown.
        crops: dict from image sizes, `(height, width)`, to the share of
            photographs that is kept; that of `None` is for all other sizes.
        interpolation: str. The filter by which photographs are resized, or
            `None` if it is unknown.
        class_names: list of str, or the name of a data set. `None` if they
            are unknown.
        checkpoint: `dialects.Checkpoint`. The checkpoint of another project
            that the values are from, or `None`.
    """

    where: str
    layers: dict
    dataset: str = None
    preprocessing: str | tuple = None
    input_shape: tuple = None
    crops: dict = dataclasses.field(default_factory=dict)
    interpolation: str = None
    class_names: str | list = None
    checkpoint: dialects.Checkpoint = None

    @property
    def classes(self):
        """int. Number of classes, or `None` without a classifier."""
        top = self.layers.get("predictions")
        return top[0].shape[-1] if top else None

    @property
    def channels(self):
        """int. Number of channels of the images."""
        return self.layers["stem_conv"][0].shape[-2]

    def data_config(self, size, include_top):
        """Returns the `data_config` of a `keras_resfam.layers.Rescaling`.

        Args:
            size: tuple. `(height, width)` of the network's images.
            include_top: bool. Whether the network has the classifier.
        """
        known = {
            "crop": self.crops.get(size, self.crops.get(None)),
            "interpolation": self.interpolation,
            "class_names": self.class_names if include_top else None,
        }
        return {key: value for key, value in known.items() if value}

    def with_channels(self, channels):
        """Returns the weights for images with another number of channels.

        Args:
            channels: int.

        Raises:
            ValueError: If the weights are not for images with three channels.
        """
        if self.channels != RGB:
            own = f"{self.channels} channel{'s' * (self.channels > 1)}"
            raise ValueError(
                f"`input_shape` should have {own}, like the images of the "
                f"weights {self.where}. Only weights for RGB images are "
                f"adapted to other channels. Received: {channels} channels"
            )
        kernel, *others = self.layers["stem_conv"]
        kernel = adapt_kernel(kernel, channels)
        checkpoint, moments = self.checkpoint, self.preprocessing
        if checkpoint is not None:
            values = {**checkpoint.values, ("stem_conv", "weight"): kernel}
            checkpoint = dataclasses.replace(checkpoint, values=values)
        if isinstance(moments, str):
            moments = DATASETS[moments].mean, DATASETS[moments].std
        if moments is not None:
            moments = tuple(adapt_moments(x, channels) for x in moments)
        shape = self.input_shape
        return dataclasses.replace(
            self,
            layers={**self.layers, "stem_conv": [kernel, *others]},
            checkpoint=checkpoint,
            preprocessing=moments,
            input_shape=shape and (*shape[:2], channels),
        )

    def load_into(self, network):
        """Loads the weights into a network.

        Args:
            network: list of the layers of the network, with or without the
                classifier.

        Raises:
            ValueError: If the values do not fit the layers. The message names
                the first layer. No layer is changed then.
        """
        targets = {layer.name: layer for layer in network if layer.weights}
        layers = self.layers
        if "predictions" not in targets:
            layers = {k: v for k, v in layers.items() if k != "predictions"}
        elif "predictions" not in layers:
            raise ValueError(
                "`include_top` should be False with weights that have no "
                f"classifier, such as those of {self.where}. "
                "Received: include_top=True"
            )
        with naming_weights(self.where):
            if self.checkpoint is not None:
                self.checkpoint.check(targets.values())
            fingerprint.check_names(targets, layers)
        for name, target in targets.items():
            shapes = [values.shape for values in layers[name]]
            found = [tuple(weight.shape) for weight in target.weights]
            if found != shapes:
                raise ValueError(
                    f"Layer '{name}' should have variables of the shapes "
                    f"{shapes} to hold the weights of {self.where}: "
                    "`input_shape` and `classes` should fit them. "
                    f"Received: {found}"
                )
        for name, target in targets.items():
            target.set_weights(layers[name])


@contextlib.contextmanager
def naming_weights(where):
    """Turns any error about a file into a ValueError that names the file."""
    try:
        yield
    except hdf5.ERRORS as error:
        raise ValueError(
            f"The weights of {where} do not fit this network. {error}"
        ) from error
