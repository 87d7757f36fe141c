"""Functions of the backends that Keras lacks or computes slowly.

Internal: users import nothing from here. Each function states which backends it
is for.
"""
