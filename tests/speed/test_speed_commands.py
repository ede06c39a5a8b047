"""Every subcommand from its command line to its files, with tiny networks and few rounds."""

import json
import multiprocessing
import subprocess
import sys

import pytest
import torch
from torch import nn

from irformer.commands import speed as command
from irformer.commands.command_line import END, START
from irformer.errors import UserError
from irformer.speed import (
    bounded_memory,
    floors,
    graph_agreement,
    loop_overhead,
    norm_layers,
    peak_memory,
    pipeline,
    restoring,
    scaling_curves,
    startup_times,
    training_step,
)
from irformer.speed.alternatives import Options, RateCache, Setting
from irformer.speed.measure import Spread, Timing
from irformer.speed.restoring import Restoring
from irformer.speed.training_step import Step
from irformer.speed.verdicts import Finding

MIB = 2**20


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """One case of each kind, as small as it can be."""
    for module, values in {
        floors: {"_RATE_SECONDS": 0.05},
        restoring: {"QUICK": (Restoring("swinir_tiny", 2, 16),)},
        training_step: {"QUICK": (Step("swinir_tiny", 2, 1, 16),)},
        norm_layers: {
            "QUICK_SHAPES": ((1, 8, 8, 12),),
            "QUICK_RESTORING": Restoring("swinir_tiny", 2, 8),
            "QUICK_STEP": Step("swinir_tiny", 2, 1, 8),
        },
        loop_overhead: {"BLOCK": 2},
        peak_memory: {"QUICK": (Restoring("swinir_tiny", 2, 16),)},
        graph_agreement: {"QUICK": (Restoring("swinir_tiny", 2, 16),)},
        bounded_memory: {"QUICK": (Restoring("swinir_tiny", 2, 16),), "_WARM_UP": 16},
        scaling_curves: {"_QUICK_SWEEPS": {"size": (8, 16), "batch": (1, 2)}},
        pipeline: {"HEIGHT": 482, "WIDTH": 720, "IMAGES": 2},
    }.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


def measured(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["speed.py", *words, "--device", "cpu", "--quick", "--rounds", "2"])
    command.speed()


def strict(file) -> dict:
    """Read JSON that no other reader would refuse."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(file.read_text(), parse_constant=refuse)


@pytest.mark.parametrize("what", ["infer", "train"])
def test_networks_are_compared(what, tmp_path, monkeypatch, capsys):
    measured(monkeypatch, what, "--json", str(tmp_path / "a.json"))
    record = strict(tmp_path / "a.json")
    machine = record["machine"]
    assert machine["command"].startswith("python speed.py")
    assert machine["packages"]["torch"] == torch.__version__.split("+")[0] or machine["packages"]["torch"] == torch.__version__
    assert machine["threads"] == torch.get_num_threads()
    assert record["notes"], "quick numbers say that they are"
    (result,) = record["sections"][what]["results"]
    assert [timing["name"] for timing in result["timings"]] == ["official", "ln", "iln"]
    assert all(len(timing["seconds"]) == 2 and min(timing["seconds"]) > 0 for timing in result["timings"])
    assert {ratio["name"].partition(",")[0] for ratio in result["ratios"]} == {
        "official / ln",
        "iln / ln",
        "official / best of irformer",
    }
    assert result["floors"]["fp32"] > 0
    assert result["operators"].keys() == {"ln", "iln"}
    shown = capsys.readouterr().out
    verdict = next(line for line in shown.splitlines() if ": iln / ln " in line)
    reached = next(ratio["reached"] for ratio in result["ratios"] if ratio["name"] == "iln / ln")
    assert verdict.endswith(": reached" if reached else ": NOT REACHED")
    assert "where the time of ln goes: " in shown


def test_models_norms_sizes_and_precision_are_options(tmp_path, monkeypatch):
    words = ["infer", "--models", "hat_tiny", "--size", "8", "16", "--norms", "ln", "rms", "--precision", "fp32", "bf16", "--no-profile"]
    measured(monkeypatch, *words, "--json", str(tmp_path / "a.json"))
    results = strict(tmp_path / "a.json")["sections"]["infer"]["results"]
    assert [result["work"] for result in results] == ["restore hat_tiny x2, 8x8", "restore hat_tiny x2, 16x16"]
    for result in results:
        assert [timing["name"] for timing in result["timings"]] == ["ln", "rms", "ln bf16", "rms bf16"]
        assert {ratio["name"] for ratio in result["ratios"]} == {"rms / ln", "rms bf16 / ln bf16"}
        assert result["floors"].keys() == {"fp32", "bf16"}
        assert result["operators"] == {}
        assert "the official HAT has no upsampler" in result["notes"][0]


def test_compiled_networks_are_compared_with_each_other():
    settings = Options(1, compile=True, precisions=("bf16",)).settings(official=True)
    assert [setting.name for setting in settings] == [
        "official",
        "official bf16",
        "ln bf16",
        "iln bf16",
        "ln bf16 compiled",
        "iln bf16 compiled",
    ]
    assert Setting("ln", "fp32", compiled=True).name == "ln compiled"


def test_a_compiled_network_is_measured(monkeypatch):
    compiled = []
    monkeypatch.setattr(restoring, "compiled", lambda network: compiled.append(network) or network)
    case = Restoring("swinir_tiny", 2, 8)
    found = restoring.compare_restoring(
        case, RateCache(torch.device("cpu")), Options(1, ("ln",), compile=True, official=False, profiled=False)
    )
    assert [timing.name for timing in found.timings] == ["ln", "ln compiled"]
    assert len(compiled) == 1


def test_a_bare_step_trains():
    step = Step("swinir_tiny", 2, 1, 8)
    network = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 1))
    before = network[1].weight.clone()
    training_step.TrainingStep(network, torch.optim.SGD(network.parameters(), 0.1), Setting("ln"), step, torch.device("cpu"))()
    assert not torch.equal(network[1].weight, before)


@pytest.mark.slow
def test_norms(tmp_path, monkeypatch, capsys):
    measured(monkeypatch, "norm", "--norms", "ln", "iln", "dyt", "--json", str(tmp_path / "a.json"))
    layers = strict(tmp_path / "a.json")["sections"]["norm"]["results"]
    assert [layer.get("part") for layer in layers] == ["forward", "forward and backward", None, None]
    for layer in layers[:2]:
        assert [timing["name"] for timing in layer["timings"]] == ["F.layer_norm", "ln", "iln", "dyt"]
        assert layer["ratios"].keys() == {"ln", "iln", "dyt"}
    assert [timing["name"] for timing in layers[2]["timings"]] == ["ln", "iln", "dyt"]
    assert "[1, 8, 8, 12]" in capsys.readouterr().out


def test_the_loop_is_measured_between_bare_steps(tmp_path, monkeypatch):
    measured(monkeypatch, "loop", "--json", str(tmp_path / "a.json"))
    (result,) = strict(tmp_path / "a.json")["sections"]["loop"]["results"]
    assert [timing["name"] for timing in result["timings"]] == ["loop", "bare step"]
    assert [len(timing["seconds"]) for timing in result["timings"]] == [2, 2]
    loop, bare = (sum(timing["seconds"]) for timing in result["timings"])
    assert result["ratio"]["found"]["median"] == pytest.approx(bare / loop), "throughput, not time"


class Allocates(nn.Module):
    """Needs 64 MiB for a moment, and returns 1 MiB."""

    def forward(self, _image: torch.Tensor) -> torch.Tensor:
        return torch.ones(64 * MIB // 4).reshape(64, -1).sum(0)


def two_peaks() -> list[int]:
    return [peak_memory.peak_bytes(Allocates(), torch.zeros(1)) for _ in range(2)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_counts_what_is_freed_again():
    with multiprocessing.get_context("spawn").Pool(1) as new_process:  # in an old one, memory that earlier tests freed is used again
        for peak in new_process.apply(two_peaks):  # the first peak does not hide the second
            assert 60 * MIB <= peak <= 80 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_a_network_in_its_own_process():
    assert peak_memory._in_a_process(Restoring("swinir_tiny", 2, 64), "ln", torch.device("cpu"), 1) > MIB


def test_memory_is_compared_with_the_official_network(tmp_path, monkeypatch):
    peaks = {"official": 100 * MIB, "ln": 60 * MIB, "iln": 50 * MIB}
    monkeypatch.setattr(peak_memory, "_in_a_process", lambda _case, name, _device, _threads: peaks[name])
    measured(monkeypatch, "memory", "--json", str(tmp_path / "a.json"))
    (result,) = strict(tmp_path / "a.json")["sections"]["memory"]["results"]
    assert result["bytes"] == peaks
    assert {ratio["name"]: ratio["found"]["median"] for ratio in result["ratios"]} == {"ln / official": 0.6, "iln / official": 0.5}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_exported_files_are_compared_with_their_network(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"Before\n{START}\nold\n{END}\nafter\n")
    measured(monkeypatch, "onnx", "--norms", "iln", "--size", "16", "24", "--json", str(tmp_path / "a.json"), "--page", str(page))
    found = strict(tmp_path / "a.json")["sections"]["onnx"]["results"]
    assert [graph["written"]["precision"] for graph in found] == ["fp32", "fp16"]
    assert all(graph["written"]["agreements"][1]["decibels"] > (90, 50)[i] for i, graph in enumerate(found))
    assert "| network | norm | file | 16x16 | 24x24 |" in page.read_text()


@pytest.mark.slow
def test_runtimes_take_turns_with_pytorch(tmp_path, monkeypatch):
    measured(monkeypatch, "infer", "--norms", "ln", "--backends", "onnxruntime", "openvino", "--json", str(tmp_path / "a.json"))
    (result,) = strict(tmp_path / "a.json")["sections"]["infer"]["results"]
    assert [timing["name"] for timing in result["timings"]][-3:] == ["ln", "ln onnxruntime", "ln openvino"]


def test_bounded_memory_is_compared_with_restoring_at_once(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\n{END}\nafter\n")
    measured(monkeypatch, "bounded", "--norms", "iln", "--memory", "100MB", "--json", str(tmp_path / "a.json"), "--page", str(page))
    (result,) = strict(tmp_path / "a.json")["sections"]["bounded"]["results"]
    assert (result["norm"], result["bound"]) == ("iln", 10**8)
    assert result["difference"] < 1e-5
    assert "| restore swinir_tiny x2, 16x16 | iln |" in page.read_text()


def test_a_bound_too_small_is_reported():
    with pytest.raises(UserError, match="which need at least"):
        bounded_memory.compare_bounded(Restoring("swinir_tiny", 2, 16), "ln", "1MB", torch.device("cpu"))


def test_a_first_step_is_reached(tmp_path):
    small = ["model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]"]
    startup_times._reach_first_step(tmp_path / "run", ["model=swinir_tiny", *small, "trainer=cpu", "data=sample", f"paths.runs={tmp_path}"])
    assert "train/loss" in (tmp_path / "run/metrics.csv").read_text()


def test_a_start_that_fails_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"ended before its first step: error: unknown key modle"):
        startup_times._reach_first_step(tmp_path / "run", ["modle=swinir_tiny"])
    with pytest.raises(UserError, match=r"ended with status 0, expected 1"):
        startup_times._finish(["-c", "pass"], 1)


def test_importing_irformer_loads_nothing_heavy():
    code = "import irformer, sys; print(*[name for name in ('torch', 'numpy', 'hydra', 'pydantic') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_curves_are_drawn(suffix, tmp_path):
    curves = scaling_curves.scaling_curves(["ln"], torch.device("cpu"), 1, quick=True)
    assert [(curve.quantity, curve.at) for curve in curves] == [("size", (64, 256)), ("batch", (1, 2))]
    scaling_curves.draw_scaling(curves, "here", tmp_path / f"a.{suffix}")
    start = (tmp_path / f"a.{suffix}").read_bytes()[:200]
    assert b"PNG" in start or b"<?xml" in start


@pytest.mark.slow
def test_everything_ends_in_one_folder_and_on_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peak_memory, "_in_a_process", lambda _case, _name, _device, _threads: MIB)
    for start in ("_finish", "_reach_first_step"):
        monkeypatch.setattr(startup_times, start, lambda *_arguments: None)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    measured(monkeypatch, "all", "--out", str(tmp_path / "out"), "--page", str(page))
    record = strict(tmp_path / "out/speed.json")
    names = {"infer", "train", "norm", "loop", "memory", "data", "startup", "scaling"}
    assert record["sections"].keys() == names
    assert all(section["results"] for section in record["sections"].values())
    text = (tmp_path / "out/speed.md").read_text()
    assert text.startswith("    python speed.py")
    assert "## Restoring images" in text
    assert "![Scaling](scaling.svg)" in text
    assert (tmp_path / "out/scaling.png").is_file()
    assert (tmp_path / "scaling.svg").is_file(), "beside the page"
    assert page.read_text() == f"before\n{START}\n\n{text}\n{END}\nafter\n"
    assert f"wrote {tmp_path / 'out/speed.json'}" in capsys.readouterr().out


def test_compiling_needs_a_compiler(monkeypatch, capsys):
    def missing() -> str:
        raise RuntimeError("no compiler")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    monkeypatch.setattr(sys, "argv", ["speed.py", "infer", "--compile", "--device", "cpu"])
    with pytest.raises(SystemExit):
        command.speed()
    assert capsys.readouterr().err.startswith("error: --compile: on the CPU it needs a C++ compiler")


@pytest.mark.parametrize("words", [[], ["--models", "swinir_tiny", "--batch", "1", "--patch", "8"]])
def test_the_loop_is_that_of_the_chosen_step(words, monkeypatch):
    timed = []
    result = loop_overhead.LoopTimes(
        "loop",
        (Timing("loop", (1.0,)), Timing("bare step", (1.0,))),
        Finding("loop / bare step", "loop", Spread(1.0, 1.0, 1.0), None),
    )
    monkeypatch.setattr(loop_overhead, "time_loop", lambda case, *_others: timed.append(case) or result)
    measured(monkeypatch, "loop", *words)
    assert timed == [Step("swinir_tiny", 2, 1, 8) if words else loop_overhead.QUICK[0]]


def test_what_cannot_be_written_is_reported_before_measuring(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("no marks")
    monkeypatch.setattr(sys, "argv", ["speed.py", "all", "--page", str(page), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        command.speed()
    assert capsys.readouterr().err.startswith(f"error: {page}: expected a page with the lines ")
