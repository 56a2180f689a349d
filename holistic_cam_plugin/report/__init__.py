"""The HTML report of a batch folder: one card per image with its picture and all its maps."""
