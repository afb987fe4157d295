"""Side-by-side measurements; each prints one JSON object a line. Ratios are of times measured in turn in one run."""
