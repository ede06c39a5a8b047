"""Write a checkpoint for other tools: `python scripts/export.py CHECKPOINT OUT --format safetensors|official`."""

from irformer.cli import export

if __name__ == "__main__":
    export()
