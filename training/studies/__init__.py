"""What `analyse.py` runs, the files that it writes, and its HTML page."""
