"""From what `weights=` names to verified values in a model.

Internal: users import `keras_resfam.list_weights` and `keras_resfam.HubError`.
`registry` knows the trained networks, `hub` and `files` fetch and verify what
they are made of, `recipe` reads what they are, `hdf5` their arrays,
`fingerprint` tells their layers apart, and `sources` finds what a builder's
`weights=` means.
"""
