"""The measurements of Veit et al. 2016, to compare others with.

They are those of a pre-activation ResNet-110 of 54 blocks on CIFAR-10. Errors
are top-1 test errors in percent, from the result files that the authors
published with their code (https://github.com/gcr/fb.resnet.torch-lesion-study).
Where there are several trials, they are medians. Path lengths are in blocks,
from the paper.
"""

NETWORK = "Veit et al., ResNet-110"

INTACT = 6.032

DELETION = {
    "median": 6.46,
    "mean": 7.42,
    "best": 6.00,
    "worst": 42.15,
}

DELETIONS = {
    1: 6.5,
    2: 7.1,
    3: 7.8,
    4: 9.6,
    5: 9.6,
    6: 11.8,
    7: 12.2,
    8: 18.5,
    9: 24.0,
    10: 25.1,
    11: 27.8,
    12: 40.1,
    13: 43.4,
    14: 51.0,
    15: 57.8,
    16: 61.2,
    17: 62.0,
    18: 68.9,
    19: 71.4,
    20: 73.9,
}

SWAPS = {
    1: 6.9,
    2: 8.3,
    3: 11.0,
    4: 14.6,
    5: 19.8,
    6: 25.6,
    7: 26.3,
    8: 36.8,
    9: 40.2,
    10: 46.2,
}

# By Kendall's tau, in bins of 0.01. The keys are the lower edges.
SWAPS_BY_TAU = {
    0.99: 6.2,
    0.98: 7.2,
    0.97: 8.3,
    0.96: 9.4,
    0.95: 11.3,
    0.94: 15.9,
    0.93: 17.7,
    0.92: 21.7,
    0.91: 28.7,
    0.90: 33.1,
    0.89: 41.9,
    0.88: 47.2,
    0.87: 51.1,
    0.86: 59.5,
    0.85: 65.1,
    0.84: 67.2,
}

REPETITIONS = {
    1: 6.3,
    2: 6.6,
    3: 6.8,
    4: 7.2,
    5: 7.5,
    6: 8.1,
    7: 8.4,
    8: 8.8,
    9: 9.4,
    10: 9.6,
}

MEAN_LENGTH = 27.0

EFFECTIVE_LENGTHS = (5, 17)
