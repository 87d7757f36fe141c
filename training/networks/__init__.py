"""Trained networks: how they are loaded, measured and described."""
