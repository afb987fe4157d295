"""What the project says about the method, measured: studies, their runs, and docs/RESULTS.md. See `__main__.py`."""
