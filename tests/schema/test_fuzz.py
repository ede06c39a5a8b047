"""Any value under any key: a run that is built with it, or one line."""

import time
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from irformer.config.compose import compose
from irformer.errors import UserError
from irformer.schema.roles import leaves
from irformer.training.build import build_run

WORDS = ["norm=iln", "model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "debug=fast", "trainer=cpu"]
WORDS += ["data=sample", "logger=csv", "optim/schedule=cosine", "mixup={beta: 1.2, identity: true}", "name=fuzz", "paths.data=nowhere"]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.sampled_from(
        [0, 1, -1, 2**31, 2**63, 1e308, 1e-320, "", "auto", "no", "null", "1", "1e3", "../x", "[b]", "Set5", "\x00", "ß" * 300]
    ),
    st.text(max_size=12).filter(lambda text: "$" not in text),
)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text("abc", min_size=1, max_size=3), scalars, max_size=2))


@cache
def configuration():
    return compose("train", WORDS)


@cache
def keys() -> tuple[str, ...]:
    plain: Any = OmegaConf.to_container(configuration(), resolve=True)
    groups = [f"{group}" for group in plain]
    return tuple([name for name, _ in leaves(plain)] + groups)


# Numbers whose defaults happen to be whole.
FRACTIONS = ("data.max_megapixels", "callbacks.progress.line_seconds")


def fits(default: Any, value: Any) -> bool:
    """Whether a value is of the kind that the configuration has under a key."""
    if default is None or value is None:
        return True
    if isinstance(default, bool):
        return isinstance(value, bool) or value == "warn"
    if isinstance(default, int):
        return isinstance(value, int | str | list) and not isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float | list) and not isinstance(value, bool) and value == value and abs_(value) < float("inf")
    if isinstance(default, str):
        return isinstance(value, str | int | list)
    return isinstance(value, str | list | dict | int | float)


def abs_(value: Any) -> float:
    return 0.0 if isinstance(value, list) else abs(value)


def attempt(key: str, value: Any, folder, attempts) -> None:
    cfg = configuration().copy()
    OmegaConf.update(cfg, key, value, force_add=True, merge=False)
    default = OmegaConf.select(configuration(), key)
    started = time.monotonic()
    try:
        run = build_run(cfg, folder / "run")
    except UserError as error:
        line = str(error)
        assert line
        assert len(line.splitlines()) == 1, line
        assert "Traceback" not in line
        attempts.refused("configuration values")
    else:
        plain = OmegaConf.to_container(default) if OmegaConf.is_config(default) else default
        assert fits(float(plain) if key in FRACTIONS else plain, value), f"{key}={value!r} passes"
        assert run.trainer.max_steps >= 1
        attempts.handled("configuration values")
    assert time.monotonic() - started < 20
    assert not (folder / "run").exists(), "building a run writes nothing"


def fuzz(examples: int):
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )


@fuzz(30)
@given(key=st.deferred(lambda: st.sampled_from(keys())), value=values)
def test_a_few_values_under_any_key(key, value, tmp_path, attempts):
    attempt(key, value, tmp_path, attempts)


@pytest.mark.slow
@fuzz(600)
@given(key=st.deferred(lambda: st.sampled_from(keys())), value=values)
def test_any_value_under_any_key(key, value, tmp_path, attempts):
    attempt(key, value, tmp_path, attempts)


@pytest.mark.slow
def test_every_key_with_every_kind_of_value(tmp_path, attempts):
    for key in keys():
        for value in (None, True, -1, 0, 2.5, float("nan"), float("inf"), "", "word", [], [-1], {"a": 1}):
            attempt(key, value, tmp_path, attempts)
