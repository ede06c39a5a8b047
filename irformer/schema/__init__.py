"""The description of every configuration key: type, range, one sentence, and whether a resumed run may change it.

Keys that irformer reads itself are fields of the classes in `sections`. A part of the configuration that names a class by `_target_` is
described by that class: the type hints of its constructor (with `annotated_types` ranges) and the `Args` of its docstring. Third-party
classes are therefore checked like ours. `check` compares a configuration with the description, and `reference` generates
docs/configuration.md from it.
"""
