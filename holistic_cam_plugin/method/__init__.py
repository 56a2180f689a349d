"""The paper's mathematics as pure functions, one step per file; `holistic_map.py` puts them together.

    pyramid (eq. 9) -> weighting, pge, signs (eq. 6, 8) -> fuse, resizing (eq. 10 to 12)
    -> low_pass_wrap (eq. 13 to 16) -> normalize (eq. 17)

Nothing here runs a model: it needs torch, numpy and OpenCV only.
"""
