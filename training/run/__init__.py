"""A training run: from a recipe to a folder with a trained network."""
