"""Holistic-CAM in the form that other packages expect, none of which is imported."""
