"""The page that `demo.py` makes: a network in the visitor's browser."""
