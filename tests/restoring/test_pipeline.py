"""The threads that read, restore and write: order, few items in memory, and a second attempt."""

import time

import pytest

from irformer.commands.restore_pipeline import Pipeline
from irformer.errors import UserError
from irformer.imaging.images import OutOfMemoryError


@pytest.mark.parametrize("workers", [1, 4])
def test_errors_and_outputs_come_in_the_order_of_the_inputs(workers):
    """Whichever thread is first: reading and encoding are slow for some items, and fail for others."""
    written = []

    def slow(item, value=None):
        time.sleep(0.02 * (item % 3 == 0))
        if item % 5 == 4:
            raise UserError(f"{item}")
        return item

    pipeline = Pipeline(slow, lambda item, read: read, slow, lambda item, encoded: written.append(item) or item, workers)
    outcomes = list(pipeline.run(range(23), lambda: False))
    assert [item for item, _ in outcomes] == list(range(23))
    assert [item for item, outcome in outcomes if isinstance(outcome, UserError)] == [4, 9, 14, 19]
    assert written == [item for item in range(23) if item % 5 != 4]


def test_the_pipeline_holds_few_items():
    """Reading stays at most two items ahead of the network, and writing as many behind it."""
    held, most = set(), []

    def read(item):
        held.add(item)
        most.append(len(held))
        return item

    pipeline = Pipeline(read, lambda item, _: item, lambda item, _: time.sleep(0.01), lambda item, _: held.discard(item), 2)
    assert len(list(pipeline.run(range(40), lambda: False))) == 40
    assert max(most) <= 2 + 1 + 3


def test_a_step_without_memory_is_repeated_when_nothing_else_computes():
    failed = set()

    def once(step):
        def run(item, *_):
            if (step, item) not in failed and item == 2:
                failed.add((step, item))
                raise OutOfMemoryError("too large")
            return item

        return run

    pipeline = Pipeline(once("read"), lambda item, _: item, once("encode"), lambda item, _: item, 2)
    assert [outcome for _, outcome in pipeline.run(range(5), lambda: False)] == list(range(5))
    assert failed == {("read", 2), ("encode", 2)}
