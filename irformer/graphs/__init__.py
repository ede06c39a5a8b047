"""Networks as graphs for other runtimes: tracing for all sizes, ONNX and .pt2 files, and their agreement with the network."""
