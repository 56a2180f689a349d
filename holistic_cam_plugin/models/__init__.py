"""Models by name, and what `HolisticCAM` needs of them.

build, weights -> explainable (logits, layers, stages, probe, preprocessing) -> classifier -> images, classes
"""
