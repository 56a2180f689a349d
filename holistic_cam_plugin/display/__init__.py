"""Rendering of maps: overlays and figures. Saved maps stay linear."""

from holistic_cam_plugin.display.maps import apply_scale, coverage, format_percent, overlay_map

__all__ = ["apply_scale", "coverage", "format_percent", "overlay_map"]
