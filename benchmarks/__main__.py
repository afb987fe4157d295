"""Runs all benchmarks, each in a process of its own: python -m benchmarks"""

import subprocess
import sys

MODULES = ("train_step", "input_pipeline", "knn", "readout")

if __name__ == "__main__":
    sys.exit(max(subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode for name in MODULES))
