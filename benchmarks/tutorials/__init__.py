"""Segmentation, detection and a vision transformer, trained on scenes of digits and explained."""
