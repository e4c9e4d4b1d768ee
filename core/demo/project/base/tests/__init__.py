"""Run with `python -m unittest`; every port comes from the kernel."""
