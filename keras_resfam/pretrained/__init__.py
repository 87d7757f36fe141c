"""Finds, verifies and reads the weights that `weights=` asks for.

Internal: users import `keras_resfam.list_weights` and `keras_resfam.HubError`.

- `sources`: finds the weights that a builder's `weights` argument means.
- `registry`: lists the trained networks.
- `hub`, `files`: download the files of a network and verify them.
- `recipe`, `hdf5`, `fingerprint`: read its `recipe.json`, its arrays, and the
  names and shapes of its variables.
- `foreign`, `dialects`, `tensor_files`, `hub_checkpoints`: the same for
  checkpoints of other projects, such as timm.
"""
