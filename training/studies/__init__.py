"""The studies of `analyse.py`, their files and their HTML page."""
