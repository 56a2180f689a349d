"""From a file to the model's input and back; broken files of all kinds are in the tests of batch jobs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.tv_tensors import BoundingBoxes, Mask

from holistic_cam_plugin.classifiers.images import cropped, normalized, preprocessed, read_image, shown
from holistic_cam_plugin.classifiers.models import demo_classifier, load_classifier
from holistic_cam_plugin.errors import UsageError
from tests.classifiers.files import MODEL, make_photo, make_weights


def test_wrong_files(tmp_path):
    photo = make_photo(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(photo.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"did you mean photo\.jpg"):
        read_image(tmp_path / "phoot.jpg")
    with pytest.raises(UsageError, match="folder"):
        read_image(tmp_path)
    with pytest.raises(UsageError, match=r"broken\.jpg can't be read as an image"):
        read_image(tmp_path / "broken.jpg")


def test_the_models_input_is_torchvisions(tmp_path):
    photo = make_photo(tmp_path)
    classifier = load_classifier(MODEL, make_weights(tmp_path), None, "cpu")
    with Image.open(photo) as image:
        expected = torchvision.models.get_model_weights(MODEL).IMAGENET1K_V1.transforms()(image.convert("RGB"))[None]
    found = preprocessed(read_image(photo), classifier)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_what_is_shown_is_what_went_in():
    classifier = demo_classifier("cpu")
    pixels = torch.randint(0, 256, (1, 9, 7, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    np.testing.assert_allclose(shown(normalized(pixels, classifier), classifier), pixels[0] / 255, atol=1e-6)


@pytest.mark.parametrize("size", [(400, 300), (300, 451), (224, 224)])
def test_boxes_and_masks_follow_the_picture(size):
    width, height = size
    x0, y0, x1, y1 = width // 3, height // 4, 2 * width // 3, 3 * height // 4
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    seen = np.asarray(cropped(Image.fromarray(pixels), 256, 224))[..., 0] > 127
    mask = cropped(Mask(torch.from_numpy(pixels[None, ..., 0])), 256, 224)
    boxes = BoundingBoxes(
        torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32), format="XYXY", canvas_size=(height, width)
    )
    rows, columns = np.nonzero(seen)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert cropped(boxes, 256, 224)[0].tolist() == pytest.approx(edges, abs=1.01)
    assert (mask[0].numpy() > 127).shape == seen.shape
    assert ((mask[0].numpy() > 127) != seen).mean() < 0.01
    assert cropped(Image.fromarray(pixels), 64, None).size == (64 * width // min(size), 64 * height // min(size))
