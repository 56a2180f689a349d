"""How a map is shown: its colours, how much of the picture it covers, and the figure.

Maps themselves stay as they are: what is saved is linear.
"""

from holistic_cam_plugin.display.maps import COLORMAPS, SCALES, coverage, displayed, overlaid, percent

__all__ = ["COLORMAPS", "SCALES", "coverage", "displayed", "overlaid", "percent"]
