"""The commands that train, measure and publish networks, and their rooms.

Each command runs as `python training/train.py` or `python -m training.train`
from the project's root. What the commands share is in the rooms:

    startup     options, backend and machine: what a command begins with
    recipes     the papers' numbers
    images      data sets, batches, augmentation
    run         a training run in its folder
    networks    what evaluate, analyse and package load and describe
    benchmarks  what benchmark measures
    studies     what analyse runs, and the page on which it shows it
    page        the page that demo makes, on which a network is taken apart
    examples    short programs that show what the package is for
"""
