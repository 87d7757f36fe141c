"""What `benchmark.py` measures, and what it compares this package with."""
