"""Runs all benchmarks, each in a process of its own: python -m benchmarks [--full]"""

import subprocess
import sys

MODULES = (
    "train_step",
    "neighbors",
    "clustering",
    "scaling",
    "precision",
    "input_pipeline",
    "knn",
    "readout",
    "search",
    "checkpoints",
    "detection",
)

if __name__ == "__main__":
    commands = ([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]] for name in MODULES)
    sys.exit(max(subprocess.run(command).returncode for command in commands))
