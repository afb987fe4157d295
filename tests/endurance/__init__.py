"""Runs that are hurt on purpose, from outside, and compared with one that was not: `tests.kills`, `tests.soak`."""
