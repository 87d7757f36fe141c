"""The HTML page on which `analyse.py` shows its results."""
