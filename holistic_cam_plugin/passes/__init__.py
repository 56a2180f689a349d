"""Passes through the model: `run.py` runs it at every scale, `capture.py` records the target layers.

They return activations and gradients; `method` computes the maps.
"""
