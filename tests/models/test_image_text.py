"""Models of images and texts: their own logits and hand-written wrappers are the references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision.models import resnet18

from holistic_cam_plugin import ClassHolisticCAM, HolisticCAM, explainable, vit_reshape_transform
from tests.models.two_towers import (
    LONGEST,
    TEXTS,
    VOCABULARY,
    make_clip,
    make_image_processor,
    make_processor,
    make_siglip,
    make_siglip2,
    make_tokenizer,
    save_folder,
)

MODELS = {"CLIP": make_clip, "SigLIP": make_siglip, "SigLIP 2": make_siglip2}
SIZES = [64, 96]


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((90, 60))


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_logits_are_those_of_the_model_and_its_processor(picture):
    model, processor = make_clip(), make_processor()
    found = explainable(model, processor, text=TEXTS)
    expected = model(**processor(text=TEXTS, images=picture, padding=True, return_tensors="pt")).logits_per_image
    torch.testing.assert_close(found.model(found.preprocessing(picture)), expected, atol=2e-2, rtol=0)
    assert found.classes == TEXTS
    assert found.output_shape == (3,)
    assert found.preprocessing.source == "transformers"
    assert found.preprocessing.mean == (0.4,) * 3
    # A picture of the model's size needs no resizing, in which the libraries differ by up to a level of gray.
    square = picture.resize((64, 64))
    expected = model(**processor(text=TEXTS, images=square, padding=True, return_tensors="pt")).logits_per_image
    torch.testing.assert_close(found.model(found.preprocessing(square)), expected)


def test_siglip_pads_to_its_length_and_adds_its_bias(images):
    model, tokenizer = make_siglip(), make_tokenizer()
    with torch.no_grad():
        model.logit_bias.fill_(-7.5)
    found = explainable(model, make_processor(), text=TEXTS)
    tokens = tokenizer(TEXTS, padding="max_length", max_length=LONGEST, return_tensors="pt")
    torch.testing.assert_close(found.model(images), model(pixel_values=images, **tokens).logits_per_image)
    other = model(pixel_values=images, **tokenizer(TEXTS, padding=True, return_tensors="pt")).logits_per_image
    assert not torch.allclose(found.model(images), other)  # padding matters


def test_siglip_2_takes_images_as_patches(images):
    model, tokenizer = make_siglip2(), make_tokenizer()
    found = explainable(model, tokenizer=tokenizer, text=TEXTS)
    tokens = tokenizer(TEXTS, padding="max_length", max_length=LONGEST, return_tensors="pt")
    patches = torch.stack(
        [image[:, y : y + 16, x : x + 16].movedim(0, -1).flatten() for image in images for y, x in GRID]
    ).view(2, 16, -1)
    expected = model(
        pixel_values=patches, pixel_attention_mask=torch.ones(2, 16, dtype=torch.long),
        spatial_shapes=torch.tensor([[4, 4]] * 2), **tokens,
    )  # fmt: skip
    torch.testing.assert_close(found.model(images), expected.logits_per_image)
    assert found.size == (64, 64)
    assert found.multiple_of == 16


GRID = [(y, x) for y in range(0, 64, 16) for x in range(0, 64, 16)]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_texts_are_encoded_once(make, images):
    model = make()
    runs = []
    model.text_model.register_forward_hook(lambda *_: runs.append(1))
    found = explainable(model, tokenizer=make_tokenizer(), text=TEXTS)
    ClassHolisticCAM(found.model, found.target_layers[-2:-1], **found.options | {"sizes": SIZES})(images)
    assert len(runs) == 1


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_only_layers_of_the_image_encoder_are_found(make):
    found = explainable(make(), tokenizer=make_tokenizer(), text=TEXTS)
    assert len(found.layer_names) == 4
    assert {layer.name.partition(".")[0] for layer in found.maps} == {"vision_model"}
    for name, layer in zip(found.layer_names, found.target_layers, strict=True):
        assert found.model.get_submodule(name) is layer
        assert found.model.model.get_submodule(name) is layer
    assert "CLIP" in repr(found) or "Siglip" in repr(found)


class ByHand(nn.Module):
    """What a user writes today."""

    def __init__(self, model, tokens):
        super().__init__()
        self.model, self.tokens = model, tokens

    def forward(self, images):
        return self.model(pixel_values=images, interpolate_pos_encoding=True, **self.tokens).logits_per_image


@pytest.mark.parametrize("make", [make_clip, make_siglip])
def test_the_maps_are_those_of_a_wrapper_by_hand(make, images):
    model, tokenizer = make(), make_tokenizer()
    padding = "max_length" if make is make_siglip else True
    wrapper = ByHand(model, tokenizer(TEXTS, padding=padding, max_length=LONGEST, return_tensors="pt"))
    found = explainable(model, tokenizer=tokenizer, text=TEXTS)
    layers, targets = found.target_layers[-2:-1], [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]
    reshape = found.options["reshape_transform"]
    expected = HolisticCAM(wrapper, layers, reshape, sizes=SIZES)(images, targets)
    maps = HolisticCAM(found.model, layers, reshape, sizes=SIZES)(images, targets)
    np.testing.assert_allclose(maps, expected, atol=1e-4)
    mask = {"mask_layer": found.deepest.module, "sizes": SIZES}
    expected = ClassHolisticCAM(wrapper, layers, reshape, **mask)(images, targets)
    maps = ClassHolisticCAM(found.model, layers, **found.options | {"sizes": SIZES})(images, targets)
    np.testing.assert_allclose(maps, expected, atol=1e-4)
    others = ClassHolisticCAM(found.model, layers, **found.options | {"sizes": SIZES})(images, targets[::-1])
    assert np.abs(maps - others).max() > 0.1  # each text has its own map


def test_a_reshape_transform_of_ones_own_gives_the_same_maps(images):
    found = explainable(make_clip(), tokenizer=make_tokenizer(), text=TEXTS)
    layer = found.model.get_submodule("vision_model.encoder.layers.2.layer_norm1")
    maps = HolisticCAM(found.model, [layer], vit_reshape_transform, sizes=SIZES)(images)
    ours = found.at(["vision_model.encoder.layers.2.layer_norm1"])
    np.testing.assert_array_equal(
        HolisticCAM(ours.model, [layer], ours.options["reshape_transform"], sizes=SIZES)(images), maps
    )


def test_the_model_is_left_as_it_was(images):
    model = make_clip()
    model.train()
    model.text_model.eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = {name: module.training for name, module in model.named_modules()}
    attributes = {name: dict(vars(module)) for name, module in model.named_modules()}
    with torch.inference_mode():
        found = explainable(model, tokenizer=make_tokenizer(), text=TEXTS)
    assert not found.model.features.is_inference()
    assert not found.model.features.requires_grad
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert {name: dict(vars(module)).keys() for name, module in model.named_modules()} == {
        name: known.keys() for name, known in attributes.items()
    }
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    found.model(images).sum().backward()
    assert all(parameter.grad is None for parameter in model.text_model.parameters())
    assert model.visual_projection.weight.grad is not None


def test_half_precision(images):
    model = make_clip()
    expected = explainable(model, tokenizer=make_tokenizer(), text=TEXTS).model(images)
    found = explainable(model.to(torch.bfloat16), tokenizer=make_tokenizer(), text=TEXTS)
    logits = found.model(images.to(torch.bfloat16))
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, atol=0.3, rtol=0.1)


def test_a_single_text(images):
    found = explainable(make_siglip(), make_processor(), text=["a red three"])
    assert found.model(images).shape == (2, 1)
    maps = ClassHolisticCAM(found.model, found.target_layers[-2:-1], **found.options | {"sizes": SIZES})(images)
    assert maps.max() == 1


def test_tokenizer_and_preprocessing_of_the_models_own_folder(tmp_path, images):
    folder = save_folder(tmp_path / "clip")
    model = type(make_clip()).from_pretrained(folder)
    found = explainable(model, text=TEXTS)
    assert found.preprocessing.std == (0.25,) * 3
    torch.testing.assert_close(
        found.model(images), explainable(make_clip(), make_processor(), text=TEXTS).model(images)
    )


class Towers(nn.Module):
    """A model of one's own, with the names of open_clip."""

    def __init__(self, bias=None):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU()
        )
        self.words = nn.EmbeddingBag(len(VOCABULARY), 12)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        self.logit_bias = bias

    def encode_image(self, images):
        return self.trunk(images).mean(dim=(2, 3))

    def encode_text(self, ids):
        return self.words(ids)

    def forward(self, images, ids):
        features, texts = self.encode_image(images), self.encode_text(ids)
        cosines = torch.cosine_similarity(features[:, None], texts[None], dim=2)
        return cosines * self.logit_scale.exp() + (0 if self.logit_bias is None else self.logit_bias)


def number_words(texts):
    rows = [[VOCABULARY[word] for word in text.split()] for text in texts]
    return torch.tensor([row + [0] * (LONGEST - len(row)) for row in rows])


@pytest.mark.parametrize("bias", [None, torch.tensor(-2.0)])
def test_a_model_of_ones_own(images, bias):
    model = Towers(bias).eval()
    found = explainable(model, text=TEXTS, tokenizer=number_words, size=(64, 64))
    torch.testing.assert_close(found.model(images), model(images, number_words(TEXTS)))
    assert found.layer_names == ["trunk.1", "trunk"]
    assert found.options == {"mask_layer": model.trunk}
    maps = ClassHolisticCAM(found.model, found.target_layers[:1], **found.options, sizes=SIZES)(images)
    assert maps.shape == (2, 64, 64)


def open_clip_model(kind="CLIP", **options):
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    vision = {"layers": 4, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64} | options
    text = {"context_length": LONGEST, "vocab_size": len(VOCABULARY), "width": 32, "heads": 2, "layers": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(open_clip, kind)(24, vision, text, init_logit_bias=-3.0 if kind == "CustomTextCLIP" else None)
    open_clip.set_model_preprocess_cfg(
        model, {"size": 64, "mode": "RGB", "mean": (0.3,) * 3, "std": (0.2,) * 3, "interpolation": "bicubic",
                "resize_mode": "shortest", "fill_color": 0},
    )  # fmt: skip
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("CLIP", {}), ("CustomTextCLIP", {}), ("CLIP", {"layers": (1, 1, 1, 1), "width": 16})],
    ids=["ViT", "CustomTextCLIP", "ResNet"],
)
def test_models_of_open_clip(images, kind, options):
    model = open_clip_model(kind, **options)
    found = explainable(model, text=TEXTS, tokenizer=number_words)
    torch.testing.assert_close(found.model(images), model.get_logits(images, number_words(TEXTS))[0])
    assert found.size == (64, 64)
    assert (found.preprocessing.mean, found.preprocessing.source) == ((0.3,) * 3, "open_clip")
    assert found.preprocessing.resize == 64
    assert found.layer_names[0].startswith("visual.")
    needed = found.options | {"tiles": True, "sizes": SIZES}
    needed.pop("multiple_of", None)
    assert ClassHolisticCAM(found.model, found.target_layers[-2:-1], **needed)(images).shape == (2, 64, 64)


def test_preprocessing_of_open_clip_that_squashes(picture):
    model = open_clip_model()
    model.visual.preprocess_cfg |= {"resize_mode": "squash", "interpolation": "bilinear"}
    preprocessing = explainable(model, text=TEXTS, tokenizer=number_words).preprocessing
    assert preprocessing.resize == (64, 64)
    assert preprocessing.interpolation == "bilinear"
    assert preprocessing(picture).shape == (1, 3, 64, 64)


def refusal(kind, model, *arguments, **options):
    with pytest.raises(kind) as error:
        explainable(model, *arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("make", [*MODELS.values(), Towers, open_clip_model])
def test_a_model_without_texts_names_the_argument(make):
    model = make()
    message = refusal(TypeError, model)
    assert message == (
        f'{type(model).__name__} compares images with texts: pass explainable(model, text=["a dog", "a cat"])'
    )


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("a dog", TypeError, "text must be a list of strings"),
        ([1, 2], TypeError, "text must be a list of strings"),
        (7, TypeError, "text must be a list of strings"),
        ([], ValueError, "text is empty"),
        (["a nine", " "], ValueError, "text 1 is empty"),
        (["a nine", "a nine"], ValueError, "'a nine' is given twice"),
        (["a nine", "a nine " * 6], ValueError, "has 14 tokens, but the model takes at most 10"),
        (["a walrus", "a penguin"], ValueError, "cannot tell 'a penguin' from 'a walrus'"),
    ],
)
def test_texts_that_cannot_be_used(text, kind, message):
    assert message in refusal(kind, make_clip(), make_processor(), text=text)


def test_texts_for_a_classifier():
    message = refusal(TypeError, resnet18(), text=TEXTS)
    assert message == "ResNet does not compare images with texts, as CLIP does: leave out text="


def test_a_tokenizer_is_asked_for():
    for model in (make_clip(), open_clip_model(), Towers()):
        assert "pass tokenizer=" in refusal(ValueError, model, make_image_processor(), text=TEXTS)


def test_a_tokenizer_that_does_not_fit():
    message = refusal(ValueError, make_clip(), text=TEXTS, tokenizer=lambda texts: 100 + number_words(texts))
    assert message.startswith("CLIPModel cannot encode these texts: ")
    assert "(is this its tokenizer?)" in message
    message = refusal(ValueError, make_clip(), text=TEXTS, tokenizer=lambda texts: number_words(texts)[0])
    assert "must return token ids (3, L) for 3 texts, got (10,)" in message
    assert "no input_ids" in refusal(
        ValueError, make_clip(), text=TEXTS, tokenizer=lambda texts: {"ids": number_words(texts)}
    )


class Scaled(type(make_clip())):
    """Computes its logits in another way."""

    def forward(self, *arguments, **options):
        output = super().forward(*arguments, **options)
        output["logits_per_image"] = output.logits_per_image * 2
        return output


def test_other_logits_are_never_given_silently():
    model = Scaled(make_clip().config).eval()
    message = refusal(ValueError, model, make_processor(), text=TEXTS)
    assert message.startswith("the logits of Scaled are not exp(logit_scale) times the cosine")


def test_a_model_without_a_scale():
    model = Towers()
    del model.logit_scale
    assert "Towers has no logit_scale" in refusal(TypeError, model, text=TEXTS, tokenizer=number_words)


class Conditioned(nn.Module):
    """Takes more than images."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)

    def forward(self, images, question=None, *, flag=True):
        return self.stem(images).mean(dim=(2, 3)) * question.shape[1]


class Required(Conditioned):
    def forward(self, images, question):
        return super().forward(images, question)


@pytest.mark.parametrize("kind", [Conditioned, Required])
def test_other_inputs_are_named(kind):
    message = refusal(TypeError, kind())
    assert message.startswith("the model does not run on images alone (")
    assert "its forward takes question, too" in message


def test_a_wrapped_model_is_named() -> None:
    model = torch.optim.swa_utils.AveragedModel(make_clip())
    for text in (["a dog", "a cat"], None):
        with pytest.raises(TypeError, match=r"AveragedModel .*its module .module."):
            explainable(model, text=text)


def test_logits_of_ones_own_that_differ_are_refused(images):
    class Linear(nn.Module):
        """Its logit_scale is the factor itself, not its logarithm."""

        def __init__(self):
            super().__init__()
            self.vision = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.words, self.logit_scale = nn.Embedding(40, 8), nn.Parameter(torch.tensor(14.0))

        def encode_image(self, pictures):
            return self.vision(pictures)

        def encode_text(self, ids):
            return self.words(ids).mean(1)

        def forward(self, pictures, ids):
            pairs = (self.encode_image(pictures), self.encode_text(ids))
            seen, read = (nn.functional.normalize(features, dim=-1) for features in pairs)
            return self.logit_scale * seen @ read.T

    with pytest.raises(ValueError, match="are not exp"):
        explainable(Linear(), text=["a dog", "a cat"], tokenizer=number_words)


def test_texts_in_an_array_are_refused():
    with pytest.raises(TypeError, match="text must be a list of strings"):
        explainable(make_clip(), text=np.array(["a dog", "a cat"]))
