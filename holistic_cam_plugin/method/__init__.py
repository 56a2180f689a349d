"""The paper's mathematics, one stage a file, as pure functions: image pyramid, weighting, fusion, low-pass wrap.

Nothing here runs a model: it imports torch, numpy and OpenCV alone, and no other room of the package.
"""
