"""What runs a model over the pyramid and records its target layers: capture, records, outputs, targets, tiles, stacks.

It may import `method`, but never OpenCV: what happens to maps after they are recorded is no matter of a pass.
"""
