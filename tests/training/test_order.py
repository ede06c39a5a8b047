import lightning
import pytest

from irformer.training.callbacks.order import require_order
from irformer.training.callbacks.saving import BestWeights, DueValidation, Ema, LastCheckpoint
from irformer.training.stopping import StopSignals


def last_checkpoint(tmp_path) -> LastCheckpoint:
    return LastCheckpoint(tmp_path, 1, lambda step: "", StopSignals())


def best_weights() -> BestWeights:
    return BestWeights(lambda weights, step, metrics: None)


def test_the_order_of_a_run_is_accepted(tmp_path):
    require_order([last_checkpoint(tmp_path), best_weights(), Ema(0.999), lightning.Callback(), DueValidation()])


def test_each_misplaced_callback_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^LastCheckpoint must precede BestWeights in the list of callbacks$"):
        require_order([best_weights(), last_checkpoint(tmp_path)])
    with pytest.raises(ValueError, match=r"^BestWeights must precede Ema in the list of callbacks$"):
        require_order([Ema(0.999), best_weights()])
    with pytest.raises(ValueError, match=r"^DueValidation must follow Callback in the list of callbacks$"):
        require_order([DueValidation(), lightning.Callback()])
