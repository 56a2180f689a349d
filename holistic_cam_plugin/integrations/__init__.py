"""Holistic-CAM in the form that other tools ask for; none of them is imported here.

captum takes `HolisticCAM.attribute` as it is.
"""
