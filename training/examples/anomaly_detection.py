"""Finds defects in photographs, with good ones as the only examples.

    python training/examples/anomaly_detection.py --good screws/good \\
        --images screws/new --heat-maps maps

This is PatchCore (Roth et al. 2022, https://arxiv.org/abs/2106.08265). Features
of a pretrained network describe the patches of an image. A memory bank keeps a
`--share` of the features of the good images. The score of a patch is its
distance to the nearest feature in the bank, and that of an image is its highest
(not reweighted as in equation 7). Images with high scores come first. Heat maps
are the images in gray, with red where scores are above the median of all.
"""

import pathlib
import sys

import numpy as np

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[2])

from training.startup import backend, command_line


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    command_line.add_pretrained(add, builder="WideResNet50_2", batch_size=16)
    add("--good", type=pathlib.Path, required=True, metavar="PATH")
    add("--images", type=pathlib.Path, required=True, metavar="PATH")
    add("--heat-maps", type=pathlib.Path, metavar="PATH")
    add("--levels", nargs="+", default=["P3", "P4"], metavar="Pn")
    add("--share", type=command_line.share, default=0.01)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("anomaly_detection.py"):
        backend.start(options.backend)
        from training.images import folders

        good = folders.files_in("--good", options.good)
        images = folders.files_in("--images", options.images)
        model = patch_features(options)
        features = np.concatenate(list(compute(model, good, options)))
        features = features.reshape(-1, features.shape[-1])
        bank = features[coreset(features, options.share)]
        print(f"memory bank: {len(bank)} of {len(features)} features")
        scores = score(bank, compute(model, images, options))
        for k in np.argsort(-scores.max(axis=(1, 2))):
            print(f"{scores[k].max():10.4f}  {images[k]}")
        if options.heat_maps is not None:
            write_heat_maps(scores, images, options)


def patch_features(options):
    """Returns a model from images to features, averages of 3 x 3 positions."""
    import keras

    import keras_resfam
    from training.networks import loading

    network = loading.build(options, include_top=False)
    features = keras_resfam.feature_extractor(network)
    if not set(options.levels) <= features.output.keys():
        raise ValueError(
            f"`--levels` should be some of {', '.join(features.output)}. "
            f"Received: --levels {' '.join(options.levels)}"
        )
    pool = keras.layers.AveragePooling2D(3, strides=1, padding="same")
    maps = [pool(features.output[level]) for level in options.levels]
    resize = keras.layers.Resizing(*maps[0].shape[1:3])  # bilinear
    maps = [maps[0], *map(resize, maps[1:])]
    return keras.Model(features.input, keras.ops.concatenate(maps, axis=-1))


def compute(model, files, options):
    """Yields features `(batch, height, width, n)` of batches of images."""
    import keras_resfam

    for start in range(0, len(files), options.batch_size):
        paths = files[start : start + options.batch_size]
        images = keras_resfam.load_images(paths, options.image_size, crop=1)
        yield model.predict(images, batch_size=len(images), verbose=0)


def coreset(features, share, dimensions=128):
    """Returns the rows of features that are close to all others (algorithm 1).

    After a random one, the feature farthest from those chosen is next.
    Distances are measured after a random projection, which is faster.
    """
    from sklearn.random_projection import GaussianRandomProjection

    points = features - features.mean(axis=0)
    if dimensions < points.shape[1]:
        projection = GaussianRandomProjection(dimensions, random_state=0)
        points = projection.fit_transform(points)
    squares = np.einsum("ij,ij->i", points, points)
    chosen = [int(np.random.default_rng(0).integers(len(points)))]
    nearest = np.full(len(points), np.inf, points.dtype)
    while len(chosen) < round(share * len(points)):
        last = chosen[-1]
        distances = squares + squares[last] - 2 * (points @ points[last])
        np.minimum(nearest, distances, out=nearest)
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)


def score(bank, batches):
    """Returns the distances `(images, height, width)` of features to a bank."""
    from sklearn.neighbors import NearestNeighbors

    neighbors, found = NearestNeighbors(n_neighbors=1).fit(bank), []
    for features in batches:
        distances, _ = neighbors.kneighbors(features.reshape(-1, bank.shape[1]))
        found.append(distances.reshape(features.shape[:3]))
    return np.concatenate(found)


def write_heat_maps(scores, files, options):
    """Writes each image in gray, reddened by its resized and blurred scores."""
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    import keras_resfam

    size, low, high = options.image_size, np.median(scores), scores.max()
    for path, values in zip(files, scores, strict=True):
        values = (values - low) / (high - low or 1)
        values = Image.fromarray(values.astype("float32"))
        heat = np.array(values.resize((size, size), Image.Resampling.BILINEAR))
        heat = gaussian_filter(heat, sigma=4)[..., None].clip(0, 1)
        gray = keras_resfam.load_images(path, size, crop=1, channels=1)[0]
        pixels = gray * (1 - heat) + heat * [255, 0, 0]
        name = path.relative_to(options.images)
        target = options.heat_maps / name.with_name(f"{name.name}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.round().astype("uint8")).save(target)


if __name__ == "__main__":
    command_line.run(main)
