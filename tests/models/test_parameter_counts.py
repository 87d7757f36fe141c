"""Counts that the papers or their authors' logs state, to the integer."""

import math

import pytest

import keras_resfam

pytestmark = [
    pytest.mark.usefixtures("quick_initializers"),
    pytest.mark.backend_independent,
]


def count(variables):
    return sum(math.prod(variable.shape) for variable in variables)


# Arguments, trainable parameters for 10 classes, BN statistics.
DMRNET = [
    (dict(depth=14), 349_402, 2_208),  # the authors' log prints 0.3494M
    (dict(depth=20), 543_834, 3_104),
    (dict(depth=26), 738_266, 4_000),
    (dict(depth=38), 1_127_130, 5_792),
    (dict(depth=50), 1_515_994, 7_584),
    (dict(depth=56), 1_710_426, 8_480),
    (dict(depth=98), 3_071_450, 14_752),
    (dict(depth=32, width=4), 14_851_402, 19_584),
    (dict(depth=50, width=4), 24_151_882, 30_336),
    (dict(depth=8, branches=1), 78_042, 672),
    (dict(depth=8, branches=2), 154_970, 1_312),
    (dict(depth=8, branches=3), 231_898, 1_952),
    (dict(depth=8, branches=4), 308_826, 2_592),
    (dict(depth=14, branches=1), 175_258, None),
    (dict(depth=14, branches=3), 523_546, None),
    (dict(depth=14, branches=4), 697_690, None),
    (dict(depth=14, mapping="identity"), 349_402, 2_208),
    (dict(depth=14, classes=100), 355_252, None),
    (dict(depth=50, width=4, classes=100), 24_175_012, None),
]
DILNET = [
    (dict(depth=14), 346_650, None),
    (dict(depth=20), 541_082, None),
    (dict(depth=26), 735_514, None),
    (dict(depth=38), 1_124_378, None),
    (dict(depth=50), 1_513_242, None),
    (dict(depth=56), 1_707_674, None),
    (dict(depth=98), 3_068_698, None),
    (dict(depth=32, width=4), 14_809_674, None),
    (dict(depth=50, width=4), 24_110_154, None),
]
RESNET = [  # Zhao et al.'s baseline of the same layers: depth 2L + 2
    (dict(depth=26, shortcut="projection"), 369_690, None),
    (dict(depth=38, shortcut="projection"), 564_122, None),
    (dict(depth=50, shortcut="projection"), 758_554, None),
    (dict(depth=74, shortcut="projection"), 1_147_418, None),
    (dict(depth=98, shortcut="projection"), 1_536_282, None),
    (dict(depth=110, shortcut="projection"), 1_730_714, None),
    (dict(depth=194, shortcut="projection"), 3_091_738, None),
    (dict(depth=62, width=4, shortcut="projection"), 15_178_314, None),
    (dict(depth=98, width=4, shortcut="projection"), 24_478_794, None),
    (dict(depth=110), 1_727_962, 8_096),  # He et al. print 1.7M
    (dict(depth=20), 269_722, None),  # 0.27M
]
WIDE_RESNET = [
    (dict(depth=40, width=1), 563_930, 2_720),
    (dict(depth=40, width=2), 2_243_546, 5_408),
    (dict(depth=40, width=4), 8_949_210, 10_784),  # the authors' log
    (dict(depth=40, width=8), 35_748_314, 21_536),
    (dict(depth=28, width=10), 36_479_194, 17_952),
    (dict(depth=22, width=8), 17_158_106, 10_784),
    (dict(depth=16, width=8), 10_961_370, 7_200),
    (dict(depth=16, width=10), 17_116_634, 8_992),
    (dict(depth=40, width=10), 55_841_754, 26_912),
    (dict(depth=16, width=4), 2_748_890, 3_616),
    (dict(depth=52, width=1), 758_362, 3_616),
    (dict(depth=28, width=2), 1_467_610, 3_616),
    (dict(depth=16, width=2), 691_674, 1_824),
    (dict(depth=16, width=1), 175_066, 928),
    (dict(depth=10, width=1), 77_850, 480),
    (dict(depth=10, width=1, dropout=0.3), 77_850, None),
    (dict(depth=28, width=10, classes=100), 36_536_884, None),
    # Table 2: N = (depth - 4) / 6 whatever the block.
    (dict(depth=40, width=2, block=(1, 3, 1)), 1_429_082, None),
    (dict(depth=40, width=2, block=(3, 1)), 1_211_354, None),
    (dict(depth=40, width=2, block=(1, 3)), 1_297_370, None),
    (dict(depth=40, width=2, block=(3, 1, 1)), 1_343_066, None),
    (dict(depth=22, width=2, block=(3, 1, 3)), 1_145_498, None),
    # Table 3: 36 convolutions in blocks, whatever the deepening factor.
    (dict(depth=40, width=2, block=(3,), blocks=12), 2_243_546, None),
    (dict(depth=40, width=2, block=(3, 3, 3), blocks=4), 2_243_546, None),
    (dict(depth=40, width=2, block=(3, 3, 3, 3), blocks=3), 2_243_546, None),
]
IMAGENET = [
    ("WideResNet18", dict(width=1), 11_689_512, 9_600),
    ("WideResNet18", dict(width=1.5), 25_875_816, 14_528),
    ("WideResNet18", dict(width=2), 45_618_216, 19_328),
    ("WideResNet18", dict(width=3), 101_783_976, 28_928),
    ("WideResNet34", dict(width=1), 21_797_672, 17_024),
    ("WideResNet34", dict(width=2), 86_036_008, 34_176),
    ("WideResNet50_2", {}, 68_883_240, 68_224),
    ("WideResNet101_2", {}, 126_886_696, None),
    ("DMRNet44", {}, 43_338_024, 98_432),
    ("DMRNet50", {}, 46_395_048, 99_840),
    ("ResNet18", {}, 11_689_512, 9_600),
    ("ResNet34", {}, 21_797_672, 17_024),
    ("ResNet50", {}, 25_557_032, 53_120),
    ("ResNet98", {}, 45_047_464, None),
    ("ResNet101", {}, 44_549_160, None),
    ("ResNet152", {}, 60_192_808, None),
    ("ResNet18CIFAR", {}, 11_173_962, 9_600),
]
CASES = IMAGENET + [
    (family, *case)
    for family, cases in {
        "DMRNet": DMRNET,
        "DILNet": DILNET,
        "ResNet": RESNET,
        "WideResNet": WIDE_RESNET,
    }.items()
    for case in cases
]


def case_name(value):
    if isinstance(value, dict):
        return "-".join(f"{key}={item}" for key, item in value.items())
    return None


@pytest.mark.parametrize(
    "family, arguments, trainable, statistics", CASES, ids=case_name
)
def test_published_counts(family, arguments, trainable, statistics):
    model = getattr(keras_resfam, family)(**arguments)
    assert count(model.trainable_variables) == trainable
    if statistics is not None:
        assert count(model.non_trainable_variables) == statistics


@pytest.mark.parametrize("depth", [44, 110])
@pytest.mark.parametrize("training_parts", [True, False])
def test_plain_net_has_the_layers_of_resnet_without_shortcuts(
    depth, training_parts
):
    # He et al.'s option A has no parameters: the plain net has as many.
    plain = keras_resfam.OrthoPlainNet(
        depth,
        orthonormality=1e-4 if training_parts else 0,
        modulation=training_parts,
    )
    n = (depth - 2) // 6
    convolutions = 432 + 9 * (16 * 16 * 2 * n + 16 * 32 + 32 * 32 * (2 * n - 1))
    convolutions += 9 * (32 * 64 + 64 * 64 * (2 * n - 1))
    norms = 2 * (16 + 2 * n * (16 + 32 + 64))
    expected = convolutions + norms + 64 * 10 + 10
    assert count(plain.trainable_variables) == expected
    assert expected == {44: 658_586, 110: 1_727_962}[depth]


@pytest.mark.parametrize(
    "family, depth", [("OrthoPlainNet34", 34), ("OrthoPlainNet101", 101)]
)
def test_imagenet_plain_nets_have_their_layers(family, depth):
    model = getattr(keras_resfam, family)()
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    assert len(kernels) == depth
