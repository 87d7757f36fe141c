"""The commands that train, measure and publish networks.

Each command runs as `python training/train.py` or `python -m training.train`
from the project's root. Their code is in these packages:

    startup     options, the backend and the machine
    recipes     the numbers of the papers
    images      data sets, batches and augmentation
    run         a training run in its folder
    networks    trained networks: loading, measuring, packaging, publishing
    benchmarks  the measurements of benchmark.py
    studies     the studies of analyse.py, and its HTML page
    page        the page of demo.py, in the browser
    examples    short programs that use the package
"""
