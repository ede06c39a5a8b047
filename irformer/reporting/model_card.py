"""Model cards: what a weights file is, how it was trained and what it measures, as Markdown for people and for model hubs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irformer.core.files import write_atomically
from irformer.evaluation.results import metric_traits
from irformer.reporting.page import metric_column, metric_numbers
from irformer.reporting.tables import Cell, ResultTable
from irformer.weights.checkpoints import Checkpoint


@dataclass(frozen=True)
class Training:
    """How a network was trained, as a run's folder records it.

    Args:
        data: name of the training data.
        batch: patches per step.
        patch: side of an LQ patch in pixels.
        steps: steps of the whole run.
        command: the command line.
        packages: versions by name.
    """

    data: str
    batch: int
    patch: int
    steps: int
    command: str
    packages: Mapping[str, str]

    @property
    def text(self) -> str:
        """The facts in sentences, with the command."""
        versions = ", ".join(f"{name} {self.packages[name]}" for name in ("irformer", "torch") if name in self.packages)
        return (
            f"Trained on {self.data} for {self.steps:,} steps of {self.batch} patches of {self.patch}x{self.patch} LQ pixels, "
            f"with {versions}:\n\n    {self.command}\n"
        )


def model_card(checkpoint: Checkpoint, results: Sequence[Mapping[str, Any]], training: Training | None, license: str | None) -> str:
    """Return the model card of a checkpoint.

    Args:
        checkpoint: the network with the metadata of its file.
        results: records of results.json, of the run or of benchmarks; each becomes a table.
        training: how it was trained, or None if unknown.
        license: SPDX identifier of the license of the weights, or None if unknown.
    """
    network: Any = checkpoint.network
    parameters = sum(parameter.numel() for parameter in network.parameters())
    norm = checkpoint.model.get("norm")
    facts = {
        "task": checkpoint.task or "not recorded",
        "network": f"{checkpoint.model['name']}, {parameters:,} parameters",
        "norm": norm["name"] if isinstance(norm, dict) else "part of the network",
        "scale": network.scale,
        "channels": network.in_channels,
        "license": license or "not stated",
    }
    front = {"library_name": "irformer", "pipeline_tag": "image-to-image", "tags": ["image-restoration", checkpoint.model["name"]]}
    front |= {"license": license.lower()} if license else {}
    parts = [
        "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in front.items()) + "---\n",
        f"# {checkpoint.title}\n",
        "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in facts.items()),
        "The file `model.safetensors` contains the weights and the configuration of the network:\n",
        '    from irformer import load_network\n    network = load_network("model.safetensors")\n',
        "From a repository on the Hugging Face Hub, `load_network` reads it as `hf://OWNER/REPO`.\n",
    ]
    if training is not None:
        parts += ["## Training\n", training.text]
    parts += ["## Results\n"] if results else []
    parts += [_results(record) for record in results]
    return "\n".join(parts)


def _results(record: Mapping[str, Any]) -> str:
    traits = metric_traits(record)
    names = list(record["protocol"]["metrics"])
    rows: list[list[Cell]] = [
        [name, str(len(part["per_image"])), metric_numbers(part["metrics"], names, traits)] for name, part in record["test_sets"].items()
    ]
    protocol = ", ".join(f"{key} {value}" for key, value in record["protocol"].items() if key != "metrics" and value is not None)
    table = ResultTable(
        record["task"], ["test set", "images", metric_column(" / ".join(names), names, traits)], rows, [f"Protocol: {protocol}."]
    )
    return f"{record['task']}:\n\n{table.markdown()}"


def write_model_folder(folder: Path, card: str, license_text: str | None) -> None:
    """Write the card of a folder, and the text of its license.

    Args:
        folder: the folder with model.safetensors.
        card: see `model_card`.
        license_text: content of the file LICENSE, or None.
    """
    write_atomically(folder / "README.md", lambda temporary: temporary.write_text(card, encoding="utf-8"))
    if license_text is not None:
        write_atomically(folder / "LICENSE", lambda temporary: temporary.write_text(license_text, encoding="utf-8"))
