"""The description of every configuration key: its type, its range, one sentence, and what happens to it when a run is resumed.

Keys that irformer reads itself are fields of the classes in `sections`. A part of the configuration that names a class by `_target_` is
described by that class: its constructor's type hints (with `annotated_types` ranges) and the `Args` of its docstring. Other people's
classes are therefore checked like ours. `check` compares a configuration with the description, and `page` writes docs/configuration.md
from it.
"""
