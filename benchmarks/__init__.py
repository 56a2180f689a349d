"""Experiments, one module per command: `python -m benchmarks.NAME`.

`harness` has what the commands share, `methods` has competing methods that the package does not ship.
"""
