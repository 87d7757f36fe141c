"""The four families of networks, one module each.

Internal: users import the builders from `keras_resfam`. `families` lists the
builders, `builder` turns an architecture into a builder, and `blocks` has the
parts that the architectures share.
"""
