"""The bundled photographs of the demo."""

from __future__ import annotations

from importlib import resources

from PIL import Image

__all__ = ["PHOTOS", "load_demo_photo"]

# Of ImageNet: the classes that the demo explains; none for the predicted one.
PHOTOS: dict[str, list[str]] = {"cat": [], "tripod": ["tripod", "suit, suit of clothes"]}


def load_demo_photo(name: str) -> Image.Image:
    """Load one of the `PHOTOS`, RGB.

    Example:
        >>> load_demo_photo("cat").size
        (451, 300)
    """
    with resources.files(__package__).joinpath("photos", f"{name}.jpg").open("rb") as file:
        return Image.open(file).convert("RGB")
