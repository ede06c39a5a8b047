"""Export a checkpoint for other tools: `python scripts/export.py CHECKPOINT OUT --format safetensors|official|hub|onnx|pt2`."""

from irformer.entry import export

if __name__ == "__main__":
    export()
