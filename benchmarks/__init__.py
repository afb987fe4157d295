"""Side-by-side measurements; each prints one JSON object a line. Ratios are of times measured in turn in one run."""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the mains do, before anything imports TensorFlow
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
