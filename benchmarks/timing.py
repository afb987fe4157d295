"""How all benchmarks measure: alternately, so that whatever else the machine does hits both sides."""

import json
import statistics
import time


def alternate(calls, rounds=5, repeats=1):
    """Returns for each of `calls` (name -> function) the seconds per call of every round, measured in turn.

    Every function is called once before, so that tracing and caches are not measured. One that runs in another process
    and measures there (`torch_process`) counts like the others: telling it to go takes a ten-thousandth of a second.
    """
    for call in calls.values():
        call()
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            for _ in range(repeats):
                call()
            seconds[name].append((time.perf_counter() - started) / repeats)
    return seconds


def median_ratio(numerator, denominator):
    """Returns the median over rounds of numerator / denominator."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def report(name, value, unit, **explanation):
    """Prints one result."""
    rounded = {key: round(entry, 5) if isinstance(entry, float) else entry for key, entry in explanation.items()}
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, **rounded}), flush=True)
