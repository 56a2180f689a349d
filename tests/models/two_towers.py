"""Small models of images and texts, with random weights, and a tokenizer of a few words."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

TEXTS = ["a green nine", "a red three", "a photo of two blue ones"]
WORDS = sorted({"cat", "dog"} | {word for text in TEXTS for word in text.split()})
SPECIAL = {"<pad>": 0, "<begin>": 1, "<unknown>": 2, "<end>": 3}
VOCABULARY = SPECIAL | {word: len(SPECIAL) + index for index, word in enumerate(WORDS)}
LONGEST = 10  # tokens

TEXT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "vocab_size": len(VOCABULARY), "max_position_embeddings": LONGEST, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 3,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 16,
}  # fmt: skip


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel(VOCABULARY, unk_token="<unknown>"))
    words.pre_tokenizer = Whitespace()
    ends = [(name, SPECIAL[name]) for name in ("<begin>", "<end>")]
    words.post_processor = TemplateProcessing(single="<begin> $A <end>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<begin>", eos_token="<end>", unk_token="<unknown>",
        model_max_length=LONGEST, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def make_image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=[0.4] * 3, image_std=[0.25] * 3
    )


def make_processor() -> CLIPProcessor:
    return CLIPProcessor(make_image_processor(), make_tokenizer())


def make_clip() -> CLIPModel:
    config = CLIPConfig(text_config=TEXT, vision_config=VISION | {"image_size": 64}, projection_dim=24)
    return _build(CLIPModel, config)


def make_siglip() -> SiglipModel:
    return _build(SiglipModel, SiglipConfig(text_config=TEXT, vision_config=VISION | {"image_size": 64}))


def make_siglip2() -> Siglip2Model:
    return _build(Siglip2Model, Siglip2Config(text_config=TEXT, vision_config=VISION | {"num_patches": 16}))


def save_folder(folder: Path, model: nn.Module | None = None) -> Path:
    """What somebody has after `save_pretrained` of model and processor."""
    (make_clip() if model is None else model).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    make_image_processor().save_pretrained(folder)
    return folder


def _build(kind, config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config).eval()
        for parameter in model.parameters():  # their own initial values hardly differ from one image to the next
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.15)
    return model
