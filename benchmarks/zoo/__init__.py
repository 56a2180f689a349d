"""Which models of timm, transformers and torchvision `explainable` and `HolisticCAM` explain."""
