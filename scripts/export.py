"""Export a checkpoint for other tools: `python scripts/export.py CHECKPOINT OUT --format safetensors|official`."""

from irformer.entry import export

if __name__ == "__main__":
    export()
