"""What Holistic-CAM is compared with, and every method under its name.

It may import `HolisticCAM`, `passes` and `method`; the method knows nothing of its rivals.
"""
