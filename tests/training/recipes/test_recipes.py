"""Every kind of recipe trains; their numbers are the papers'."""

import json
import math

import keras
import numpy as np
import pytest

import keras_resfam
from keras_resfam.datasets import DATASETS
from keras_resfam.models import dmrnet, ortho_plain_net, resnet, wide_resnet
from keras_resfam.pretrained import sources
from training import recipes
from training.images import batches
from training.run import distribution, optimizers, session
from training.run.description import differences
from training.run.network import (
    build_network,
    color_of_zero,
    preprocessing_of,
    training_form,
    with_blocks_dropped,
)
from training.run.trainer import Trainer

SMALL_RESNET = {"depth": 8, "width": 1}

# The smallest network of each builder, to train two steps of.
SMALL = {
    "WideResNet": {"depth": 10, "width": 1},
    "DMRNet": {"depth": 8, "width": 1},
    "OrthoPlainNet": {"depth": 8, "width": 1},
    "ResNet": SMALL_RESNET,
}


def reduced(recipe):
    """The recipe on a small network of its family.

    The forms for ImageNet have one depth, too much for JAX to compile in each
    test: WideResNet18 takes their place there. A batch of four bears no more
    than a small learning rate.
    """
    changes = {"batch_size": 4, "learning_rate": 1e-3, "weights": None}
    if recipe.builder in SMALL:
        changes["arguments"] = {**recipe.arguments, **SMALL[recipe.builder]}
    elif keras.backend.backend() == "jax":
        changes["builder"] = "WideResNet18"
        changes["arguments"] = {"width": 1}
    if recipe.drop_blocks:
        changes["drop_blocks"] = recipe.drop_blocks | {"active": 2}
    return recipe.replace(**changes)


def kinds(recipe):
    """What makes two steps of a reduced recipe another computation."""
    recipe = reduced(recipe)
    arguments = {
        f"arguments.{name}": value if isinstance(value, str) else value > 0
        for name, value in recipe.arguments.items()
    }
    options = (
        "clip_norm crop jitter lighting cutout mixup label_smoothing average "
        "warmup restarts"
    )
    fields = "builder nesterov restart_momentum decay flip padding schedule"
    return {
        **arguments,
        **{name: bool(getattr(recipe, name)) for name in options.split()},
        **{name: getattr(recipe, name) for name in fields.split()},
        "drop_blocks": str(recipe.drop_blocks),
        "color": DATASETS[recipe.dataset].image_shape[2],
    }.items()


def distinct():
    """The recipes that differ in kind.

    With JAX, which compiles for seconds, enough for each kind to be seen.
    """
    seen, chosen = set(), {}
    for recipe in recipes.RECIPES.values():
        if keras.backend.backend() != "jax" or not kinds(recipe) <= seen:
            chosen.setdefault(frozenset(kinds(recipe)), recipe)
        seen |= kinds(recipe)
    return list(chosen.values())


@pytest.fixture
def narrow(monkeypatch):
    """Makes the forms for ImageNet an eighth as wide."""
    for module in (dmrnet, ortho_plain_net, resnet, wide_resnet):
        for name in ("BASIC_FILTERS", "BOTTLENECK_FILTERS"):
            if hasattr(module, name):
                filters = [f // 8 for f in getattr(module, name)]
                monkeypatch.setattr(module, name, tuple(filters))


@pytest.mark.parametrize("recipe", distinct(), ids=lambda r: r.name)
def test_two_steps(recipe, narrow):
    small = reduced(recipe)
    record = DATASETS[recipe.dataset]
    # 32 is the least that the forms for ImageNet take.
    side = min(record.image_shape[0], 32)
    shape = (side, side, record.image_shape[2])
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (8, *shape), dtype="uint8")
    labels = draw.integers(0, record.classes, 8).astype("int32")
    keras.utils.set_random_seed(0)
    network = build_network(
        small.builder, small.arguments, record.classes, shape, record.name
    )
    trainer = Trainer(
        network,
        small,
        record.classes,
        fill=record.mean,
        trained=training_form(network, small, 0),
    )
    trainer.compile_recipe(2, run_eagerly=keras.backend.backend() != "jax")
    before = [np.array(w) for w in network.get_weights()]
    epochs = batches.Epochs(images, labels, 4, seed=0, mixup=small.mixup)
    history = trainer.fit(epochs.epoch(0), verbose=0, shuffle=False)
    assert math.isfinite(history.history["loss"][0])
    after = network.get_weights()
    moved = [
        (a != b).any()
        for a, b, w in zip(before, after, network.weights, strict=True)
        if w.name == "kernel"
    ]
    # With a warm-up from zero the first step moves nothing, the second does.
    assert any(moved) if recipe.drop_blocks else all(moved)


@pytest.mark.parametrize(
    "recipe", recipes.RECIPES.values(), ids=list(recipes.RECIPES)
)
def test_recipe_is_whole(recipe):
    schedule = optimizers.learning_rate(recipe, steps=390)
    last = recipe.epochs * 390 - 1
    if recipe.schedule == "steps":
        assert recipe.drops[-1] < recipe.epochs
        final = recipe.learning_rate * recipe.drop_factor ** len(recipe.drops)
        assert float(schedule(last)) == pytest.approx(final)
    else:
        # In float32 the last step may round to zero.
        assert 0 <= float(schedule(last)) < recipe.learning_rate / 1000
    assert recipe.source
    if recipe.dataset == "imagenet2012":
        assert (recipe.image_size, recipe.test_split) == (224, "validation")
    elif recipe.source != "this project":
        assert recipe.batch_size <= 128
    builder = getattr(keras_resfam, recipe.builder)
    builder.__signature__.bind_partial(**recipe.arguments)


# Of the first recipe of each paper on each kind of images, which the others
# are made of. Drops are epochs completed.
SGD = {"momentum": 0.9, "drop_factor": 0.1, "decay": "all"}
WRN = {**SGD, "nesterov": True, "batch_size": 128, "weight_decay": 5e-4}
DMR = {**SGD, "nesterov": True, "batch_size": 64, "weight_decay": 1e-4}
HE = {**SGD, "learning_rate": 0.1, "flip": True}
PHOTOGRAPHS = {"crop": 0, "crop_area": (0.16, 0.57), "lighting": 0.1}
NUMBERS = {
    # arXiv 1605.07146v4, section 3, train_cifar.sh and train.lua
    "wrn_28_10_cifar10": WRN
    | {"epochs": 200, "drops": (59, 119, 159), "drop_factor": 0.2}
    | {"learning_rate": 0.1, "restart_momentum": True}
    | {"flip": True, "crop": 4, "padding": "reflect"},
    # train_svhn.sh
    "wrn_16_8_dropout_svhn": WRN
    | {"epochs": 160, "drops": (79, 119), "train_split": "train+extra"}
    | {"learning_rate": 0.01, "restart_momentum": True}
    | {"flip": False, "crop": 0},
    # fb.resnet.torch
    "wrn_50_2_imagenet": HE
    | {"epochs": 90, "drops": (30, 60), "batch_size": 256, "nesterov": True}
    | {"weight_decay": 1e-4, "restart_momentum": False}
    | {"crop": 0, "crop_area": (0.08, 1.0), "jitter": 0.4, "lighting": 0.1},
    # arXiv 1611.07718v2, "Training", and train_model.py
    "dmrnet_56_cifar10": DMR
    | {"epochs": 400, "drops": (200, 300, 350), "learning_rate": 0.1}
    | {"flip": True, "crop": 4, "padding": "mean", "restart_momentum": False},
    "dmrnet_56_svhn": DMR
    | {"epochs": 40, "drops": (20, 30, 35), "learning_rate": 0.1}
    | {"flip": False, "crop": 0, "train_split": "train+extra"},
    # section 4.4
    "dmrnet_44_imagenet": HE
    | PHOTOGRAPHS
    | {"epochs": 100, "drops": (30, 60, 90), "batch_size": 256}
    | {"weight_decay": 1e-4, "nesterov": False, "jitter": 0.0},
    # train_imagenet.py
    "dmrnet_50_imagenet": HE
    | PHOTOGRAPHS
    | {"epochs": 120, "drops": (30, 60, 90), "batch_size": 256}
    | {"weight_decay": 1e-4, "nesterov": True, "jitter": 0.0},
    # arXiv 1703.01827, figure 3; He et al. 2015, section 4.2
    "ortho_plain_44_cifar10": HE
    | {"epochs": 164, "drops": (82, 123), "batch_size": 128}
    | {"weight_decay": 0.0, "nesterov": False, "crop": 4, "padding": "mean"},
    "plain_44_cifar10_noaug": HE
    | {"epochs": 164, "drops": (82, 123), "batch_size": 128}
    | {"weight_decay": 1e-4, "nesterov": False, "crop": 0, "flip": False},
    # figure 5, right; He et al. 2015, section 3.4
    "ortho_plain_34_imagenet": HE
    | PHOTOGRAPHS
    | {"epochs": 90, "drops": (30, 60), "batch_size": 256}
    | {"weight_decay": 0.0, "nesterov": False, "jitter": 0.0},
    # opts.lua and TRAINING.md of the authors
    "resnet_110_cifar10": HE
    | {"epochs": 164, "drops": (80, 121), "batch_size": 128}
    | {"weight_decay": 1e-4, "nesterov": True, "crop": 4, "padding": "mean"},
}

# Test errors in percent: on CIFAR-10, CIFAR-100 and SVHN, or on ImageNet.
ERRORS = {
    # arXiv 1605.07146v4, tables 5 and 6, and 9 for WRN-40-10
    "wrn_40_4": (4.53, 21.18),
    "wrn_16_8": (4.27, 20.43, 1.81),
    "wrn_28_10": (4.00, 19.25),
    "wrn_16_4": (5.02, 24.03, 1.85),
    "wrn_52_1": (6.43, 29.89, 2.08),
    "wrn_16_8_dropout": (None, None, 1.54),
    "wrn_28_10_dropout": (3.89, 18.85),
    "wrn_16_4_dropout": (5.24, 23.91, 1.64),
    "wrn_52_1_dropout": (6.28, 29.78, 1.70),
    "wrn_40_10_dropout": (3.8, 18.3),
    # tables 7 and 8
    "wrn_18": (30.4,),
    "wrn_18_1.5": (27.06,),
    "wrn_18_2": (25.58,),
    "wrn_18_3": (24.06,),
    "wrn_34": (26.77,),
    "wrn_34_1.5": (24.5,),
    "wrn_34_2": (23.39,),
    "wrn_50_2": (21.9,),
    # arXiv 1611.07718v2, tables 2 and 3, of 2 more layers than their L
    "dmrnet_14": (6.48, 29.62, 2.00),
    "dmrnet_20": (5.79, 27.80, 1.87),
    "dmrnet_26": (5.47, 26.76, 1.86),
    "dmrnet_32": (5.10, 25.87, 1.81),
    "dmrnet_38": (5.18, 25.41, 1.77),
    "dmrnet_50": (4.99, 24.73, 1.84),
    "dmrnet_56": (4.96, 24.41, 1.68),
    "dmrnet_98": (4.84, 23.98, 1.70),
    "dmrnet_32_4": (3.94, 19.25, 1.51),
    "dmrnet_50_4": (3.57, 19.00, 1.55),
    # Veit's authors' notebook, and section 5
    "resnet_20": (8.50,),
    "resnet_32": (7.67,),
    "resnet_44": (6.98,),
    "resnet_56": (6.56,),
    "resnet_110": (6.03,),
    "resnet_110_effective_paths": (5.96,),
}
# arXiv 1611.07718v2, table 4, and the README of fusenet; of OrthoPlainNet's
# figure 5, and a summary of that paper.
OTHER_ERRORS = {
    "dmrnet_44_imagenet": 23.66,
    "dmrnet_50_imagenet": 23.16,
    "resnet_101_imagenet": 26.41,
    "resnet_98_imagenet": 23.38,
    "plain_44_cifar10_noaug": 16.2,
    "orthonormal_plain_44_cifar10_noaug": 12.8,
    "ortho_plain_44_cifar10_noaug": 11.58,
    "ortho_plain_110_cifar10_noaug": 18.4,
    "ortho_plain_101_imagenet": 30.0,
    "resnet_44_cifar10_noaug": 12.15,
    "resnet_110_cifar10_noaug": 13.4,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_the_papers(name):
    recipe = recipes.find(name)
    assert NUMBERS[name] == {
        field: getattr(recipe, field) for field in NUMBERS[name]
    }


def test_errors_of_the_papers():
    expected = dict(OTHER_ERRORS)
    for name, errors in ERRORS.items():
        small = "cifar10", "cifar100", "svhn"
        on_photographs = name.startswith(("wrn_18", "wrn_34", "wrn_50"))
        names = ("imagenet",) if on_photographs else small[: len(errors)]
        expected |= {
            f"{name}_{dataset}": error
            for dataset, error in zip(names, errors, strict=True)
            if error is not None
        }
    assert expected == {
        name: recipe.error
        for name, recipe in recipes.RECIPES.items()
        if recipe.source != "this project" and recipe.error is not None
    }


def test_the_papers_have_nothing_of_later_years():
    later = {
        "schedule": "steps",
        "warmup": 0,
        "clip_norm": None,
        "cutout": 0,
        "mixup": 0,
        "label_smoothing": 0,
        "average": 0,
    }
    for name, recipe in recipes.RECIPES.items():
        if recipe.source != "this project":
            found = {field: getattr(recipe, field) for field in later}
            assert found == later, name


def test_networks_of_a_paper_are_trained_alike():
    """Whatever their depth, width and dropout, on CIFAR-10 and CIFAR-100."""
    own = {"name", "source", "arguments", "dataset", "error", "note"}
    for base, start in (
        ("wrn_28_10_cifar10", "wrn_"),
        ("dmrnet_56_cifar10", "dmrnet_"),
        ("resnet_110_cifar10", "resnet_"),
    ):
        base = recipes.find(base)
        for name, recipe in recipes.RECIPES.items():
            if (
                name.startswith(start)
                and name.endswith(("cifar10", "cifar100"))
                and "effective_paths" not in name
            ):
                changed = differences(vars(base), vars(recipe))
                assert changed.keys() <= own, name


def test_orthonormality_takes_the_place_of_decay():
    for name, recipe in recipes.RECIPES.items():
        if recipe.builder.startswith("OrthoPlainNet"):
            regularized = recipe.arguments["orthonormality"] > 0
            assert regularized == (recipe.weight_decay == 0), name


def test_names_are_unique_and_listed():
    modules = recipes.MODULES
    assert len(recipes.RECIPES) == sum(len(m.RECIPES) for m in modules)
    table = recipes.table()
    for name, recipe in recipes.RECIPES.items():
        assert name == recipe.name
        assert f"\n{name} " in table
    with pytest.raises(ValueError, match="Received: --list zzz"):
        recipes.table("zzz")


def test_settings_change_fields_and_arguments():
    recipe = recipes.find("dmrnet_56_cifar10").with_settings(
        [("arguments.width", 4), ("arguments.branches", 3), ("mixup", 0.2)]
    )
    assert recipe.arguments == {"depth": 56, "width": 4, "branches": 3}
    assert recipe.mixup == 0.2
    assert recipes.find("dmrnet_56_cifar10").arguments["width"] == 1


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        (("arguments.depth", 20), None),
        (("dataset", "cifar100"), None),
        (("builder", "DILNet"), None),
        (("arguments.depth", 56), 4.96),
        (("learning_rate", 0.05), 4.96),
    ],
)
def test_no_error_is_published_of_another_network(setting, error):
    recipe = recipes.find("dmrnet_56_cifar10_short").with_settings([setting])
    assert recipe.error == error
    assert recipe.note == ("in 400 epochs" if error else "")
    own = recipe.with_settings([setting, ("error", 7.0)])
    assert own.error == 7.0


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (("widht", 4), "Received: widht=4"),
        (("crop.width", 4), "Received: crop.width=4"),
        (("name", "../mine"), "Received: name='../mine'"),
        (("name", ""), "Received: name=''"),
        (("epochs", 0), "Received: epochs=0"),
        (("arguments", 3), "type dict. Received: arguments=3"),
        (("momentum", 1.0), "Received: momentum=1.0"),
        (("schedule", "linear"), "Received: schedule='linear'"),
        (("padding", "zero"), "Received: padding='zero'"),
        (("warmup", 30), "at most 20. Received: warmup=30"),
        (("modulation_epochs", 0), "Received: modulation_epochs=0"),
        (("precision", "float16"), "Received: precision='float16'"),
    ],
)
def test_bad_settings_are_refused(setting, told):
    with pytest.raises(ValueError, match=told):
        recipes.find("digits").with_settings([setting])


@pytest.mark.parametrize("drops", [(10, 5), (59, 200), ("ten",)])
def test_drops_come_in_order_and_in_time(drops):
    recipe = recipes.find("wrn_28_10_cifar10")
    with pytest.raises(ValueError, match="between 0 and 200. Received: drops"):
        recipe.replace(drops=drops)


def test_parts_move_along_with_the_epochs():
    recipe = recipes.find("digits").replace(
        epochs=100,
        modulation_epochs=5,
        penalty_schedule=((20, 0.1), (50, 1e-3), (52, 0)),
    )
    short = recipe.with_epochs(10)
    assert short.modulation_epochs == 1
    assert short.penalty_schedule == ((2, 0.1), (5, 0))
    assert [short.penalty_factor(k) for k in range(7)] == [
        *(1.0, 1.0, 0.1, 0.1, 0.1, 0, 0)
    ]
    assert [recipe.modulates(k) for k in (0, 4, 5, 99)] == [
        True,
        True,
        False,
        False,
    ]
    assert recipe.replace(modulation_epochs=None).modulates(99)


@pytest.mark.parametrize(
    "schedule",
    [(5, 0.1), ((0, 0.1),), ((5, -1),), ((8, 1), (5, 1)), ((20, 0),)],
)
def test_bad_penalty_schedules(schedule):
    with pytest.raises(ValueError, match="Received: penalty_schedule="):
        recipes.find("digits").replace(penalty_schedule=schedule)


def test_a_field_younger_than_a_run_had_its_default():
    now = json.loads(json.dumps(vars(recipes.find("digits"))))
    old = {k: v for k, v in now.items() if k not in ("restarts", "jitter")}
    assert differences(old, now) == {}
    changed = now | {"restarts": [10], "crop": 2, "note": "another"}
    assert differences(old, changed) == {"crop": (1, 2), "restarts": ([], [10])}
    assert differences(changed, old) == {"crop": (2, 1), "restarts": ([10], [])}


def test_settings_are_read_as_python_or_as_words():
    assert recipes.parse_setting("crop=4") == ("crop", 4)
    assert recipes.parse_setting("drops=(1, 2)") == ("drops", (1, 2))
    assert recipes.parse_setting("dataset=tf_flowers") == (
        "dataset",
        "tf_flowers",
    )
    with pytest.raises(ValueError, match="--set crop"):
        recipes.parse_setting("crop")


def test_unknown_recipe_names_those_like_it():
    with pytest.raises(ValueError, match="wrn_28_10_cifar10"):
        recipes.find("wrn_28_10_cifar")


def test_recipe_survives_json():
    for recipe in recipes.RECIPES.values():
        text = json.dumps(vars(recipe))
        again = recipes.Recipe(**json.loads(text))
        assert json.dumps(vars(again)) == text


def test_fine_tuning_keeps_all_but_the_classifier(tmp_path):
    path = tmp_path / "model.weights.h5"
    recipe = reduced(recipes.find("fine_tune"))
    trained = build_network(
        recipe.builder, recipe.arguments, 10, (32, 32, 3), "svhn_cropped"
    )
    trained.save_weights(path)
    source = sources.find(path, recipe.builder, recipe.arguments)
    network = build_network(
        recipe.builder, recipe.arguments, 7, (16, 16, 3), True, source
    )
    assert network.output_shape == (None, 7)
    for layer in trained.layers:
        if layer.weights and layer.name != "predictions":
            for a, b in zip(
                layer.get_weights(),
                network.get_layer(layer.name).get_weights(),
                strict=True,
            ):
                np.testing.assert_array_equal(a, b)


def test_images_are_normalized_as_the_weights_had_them():
    digits = recipes.find("digits")
    assert preprocessing_of(digits, None, 1) == "digits"
    unknown = digits.replace(dataset="tf_flowers")
    assert preprocessing_of(unknown, None, 3) == "imagenet2012"
    assert preprocessing_of(unknown, None, 1) is True
    source = sources.find("digits", "DMRNet", {"depth": 8})
    assert preprocessing_of(unknown, source, 1) == "digits"
    network = build_network(
        digits.builder, digits.arguments, 10, (8, 8, 1), "digits", source
    )
    np.testing.assert_allclose(
        color_of_zero(network), DATASETS["digits"].mean, rtol=1e-6
    )


def test_images_are_normalized_as_the_run_had_them(tmp_path):
    """Also where that one was itself fine-tuned from something else."""
    run = session.prepare(
        recipes.find("digits").replace(
            builder="ResNet", arguments=SMALL_RESNET
        ),
        tmp_path,
    )
    path = tmp_path / "model.weights.h5"
    run.trainer.network.save_weights(path)
    description = json.loads((tmp_path / "recipe.json").read_text())
    for moments, expected in (("svhn_cropped", "svhn_cropped"), (True, True)):
        description |= {"dataset": "mnist", "preprocessing": moments}
        (tmp_path / "recipe.json").write_text(json.dumps(description))
        source = sources.find(path, "ResNet", SMALL_RESNET)
        recipe = recipes.find("fine_tune").replace(weights=str(path))
        assert preprocessing_of(recipe, source, 1) == expected


def test_blocks_scaled_at_inference_are_refused():
    recipe = recipes.find("resnet_110_effective_paths_cifar10").replace(
        drop_blocks={"active": 23, "scale": "inference"}
    )
    with pytest.raises(ValueError, match="Received: drop_blocks="):
        with_blocks_dropped(None, recipe, 0)


@pytest.mark.parametrize(
    "changes, layer",
    [
        ({"arguments": {"depth": 10, "width": 1, "dropout": 0.3}}, "Dropout"),
        ({"drop_blocks": {"active": 2}}, "BlockSwitches"),
    ],
)
def test_random_numbers_are_not_compiled(changes, layer):
    recipe = recipes.find("digits").replace(
        builder="WideResNet",
        **{"arguments": {"depth": 10, "width": 1}, "compiled": True, **changes},
    )
    network = build_network(
        recipe.builder, recipe.arguments, 10, (8, 8, 1), "digits"
    )
    with pytest.raises(ValueError, match=f"`compiled`.*the {layer} '"):
        training_form(network, recipe, 0)


def test_unknown_builder():
    recipe = recipes.find("digits").replace(builder="ResNet19")
    with pytest.raises(ValueError, match="Received: builder='ResNet19'"):
        build_network(recipe.builder, recipe.arguments, 10, (8, 8, 1), "digits")


@pytest.mark.parametrize(
    "changes",
    [
        {"modulation_epochs": 1},
        {"penalty_schedule": ((1, 0),)},
    ],
)
def test_schedules_of_what_is_not_there(changes, tmp_path):
    recipe = recipes.find("digits").replace(**changes)
    with pytest.raises(ValueError, match=f"Received: {[*changes][0]}="):
        session.prepare(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_moments_are_of_one_device():
    recipe = recipes.find("digits").replace(log_moments=True)
    with pytest.raises(ValueError, match="Received: log_moments=True"):
        session.check_devices(recipe, distribution.Devices(count=2))


def test_float16_is_not_spread_by_tensorflow():
    recipe = recipes.find("digits").replace(precision="mixed_float16")
    session.check_devices(recipe, distribution.Devices(count=2))
    devices = distribution.Devices(count=2, strategy=object())
    with pytest.raises(ValueError, match="Received: precision=mixed_float16"):
        session.check_devices(recipe, devices)
