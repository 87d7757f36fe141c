"""Finds, verifies and reads the weights that `weights=` asks for.

Internal: users import `list_weights`, `class_names` and `HubError` from
`keras_resfam`.

- `sources`: finds the weights that a builder's `weights` argument means.
- `weights`: loads them into a network.
- `class_names`: finds the names of their classes.
- `registry`: lists the trained networks.
- `hub`, `files`: download the files of a network and verify them.
- `recipe`, `hdf5`, `fingerprint`: read its `recipe.json`, its arrays, and the
  names and shapes of its variables.
- `foreign`, `dialects`, `tensor_files`, `hub_checkpoints`: the same for
  checkpoints of other projects, such as timm.
"""
