"""debug=overfit, profile and anomaly on small runs; the tests of the commands run debug=fast."""

import io
import json

import pytest
import torch
from rich.console import Console
from tiny import TINY, build, logged, train
from torch import nn

from irformer.errors import UserError


def test_overfit_trains_on_one_batch_until_it_is_restored(tmp_path, capsys):
    words = [
        "batch_size=2",
        "callbacks.overfit.every=5",
        "callbacks.overfit.psnr=16",
        "trainer.log_every_n_steps=1",
        "callbacks.probe=null",
    ]
    run = build(tmp_path, "debug=overfit", *words)
    first, fifth = ([run.data.samples[i]["hq"] for i in (start, start + 1)] for start in (0, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, fifth, strict=True))
    console = Console(record=True, width=200, file=io.StringIO())
    run.execute(console)
    printed = [line for line in capsys.readouterr().out.splitlines() if "dB on the batch" in line]
    step, psnr = int(printed[-1].split()[1].rstrip(":")), printed[-1].split()[2]
    assert float(psnr) >= 16 > float(printed[-2].split()[2])
    assert step < 200
    assert console.export_text().splitlines()[-1] == f"overfit: {psnr} dB on one batch after {step} steps"


def test_overfit_that_does_not_get_there_is_an_error(tmp_path):
    run = build(tmp_path, "debug=overfit", "trainer.max_steps=3", "callbacks.probe=null")
    with pytest.raises(UserError, match=r"^overfit: \d+\.\d dB on one batch after 3 steps, expected 45 dB: "):
        train(run)


@pytest.mark.slow
def test_overfit_reaches_45_db_with_swinir_tiny(tmp_path, capsys):
    """The unmodified config; about 40 s on an idle core."""
    whole = [word for word in TINY if not word.startswith(("model.", "trainer.", "callbacks.", "batch_size", "patch_size"))]
    run = build(tmp_path, "debug=overfit", words=whole)
    train(run)
    assert float(capsys.readouterr().out.splitlines()[-1].split()[2]) >= 45


def test_profile_leaves_a_trace_and_a_table_of_ten_operations(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train(build(tmp_path, "debug=profile"))
    trace = json.loads((tmp_path / "run" / "trace.json").read_text())
    events = [event["name"] for event in trace["traceEvents"] if event.get("cat") == "cpu_op"]
    assert events.count("aten::l1_loss") == 5  # only the profiled batches
    out = capsys.readouterr().out
    rows = [line.split("│")[1:-1] for line in out.splitlines() if line.startswith("│")]
    assert len(rows) == 10
    shares = [float(row[3]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert 30 < sum(shares) <= 100
    names = [row[0].strip() for row in rows]
    assert len(set(names)) == 10
    assert sum(name.startswith("aten::") for name in names) >= 5  # the others are autograd and optimizer steps
    assert "wrote run/trace.json" in out
    with pytest.raises(UserError, match=r"debug=profile needs 8 batches .* training has 7: increase trainer\.max_steps"):
        train(build(tmp_path / "short", "debug=profile", "trainer.max_steps=7"))


class Late(nn.Module):
    """A layer that passes its input through and fails from the second call on, in the forward pass or only in the backward pass."""

    def __init__(self, forward: bool) -> None:
        super().__init__()
        self.wrong_forward = forward
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 1:
            return x
        return x / 0 if self.wrong_forward else x + (x * 0).sqrt()


def test_anomaly_names_the_module_that_made_the_first_infinity(tmp_path):
    run = build(tmp_path, "debug=anomaly", "trainer.max_steps=3")
    run.module.network.layers[0].conv = nn.Sequential(run.module.network.layers[0].conv, Late(forward=True))
    message = r"^step 2: layers\.0\.conv\.1 \(Late\) is the first module with an output that is not finite; largest input \d"
    with pytest.raises(UserError, match=message):
        train(run)


def test_anomaly_names_the_operation_that_made_the_first_nan_gradient(tmp_path):
    run = build(tmp_path, "debug=anomaly", "trainer.max_steps=3")
    run.module.network.layers[0].conv = nn.Sequential(run.module.network.layers[0].conv, Late(forward=False))
    with (
        pytest.raises(RuntimeError, match=r"Function 'MulBackward0' returned nan values"),
        pytest.warns(UserWarning, match=r"\(x \* 0\)\.sqrt\(\)"),
    ):
        train(run)
    assert logged(run, "train/loss")
