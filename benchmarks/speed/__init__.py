"""How fast the work is done, and in how much memory, beside the notebook recipe: `python -m benchmarks.speed`."""
