"""How fast streaming is, measured: `python -m inference.benchmark`, or scripts/benchmark."""
