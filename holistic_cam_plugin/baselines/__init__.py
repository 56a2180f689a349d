"""What Holistic-CAM is compared with, and every method under its name.

It may import `HolisticCAM`, `passes`, `method` and the scoring of `metrics`; the method knows nothing of its rivals.
"""
