"""Experiments: one file a command, `python -m benchmarks.NAME`.

What commands share lives in `harness`, which imports no command; the package itself never imports this folder.
"""
