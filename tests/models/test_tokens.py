"""Tokenizers of open_clip: texts that they would cut are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from holistic_cam_plugin.models.tokens import tokenize

open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")


def test_as_many_tokens_as_the_model_takes():
    tokenizer = open_clip.SimpleTokenizer(context_length=6)
    texts = ["a dog and cat", "one"]  # four words, between a first and a last token
    tokens = tokenize(nn.Module(), texts, None, tokenizer)["input_ids"]
    assert torch.equal(tokens, tokenizer(texts))
    assert tokens.shape == (2, 6)
    assert tokens[0].min() > 0  # no padding
    with pytest.raises(ValueError, match=r"the text 'a dog and a cat' has more tokens than the 6 that the model takes"):
        tokenize(nn.Module(), [*texts, "a dog and a cat"], None, tokenizer)


def test_the_tokenizer_of_clip_comes_with_open_clip():
    text = {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
    vision = {"layers": 1, "width": 8, "head_width": 8, "patch_size": 16, "image_size": 32}
    tokens = tokenize(open_clip.CLIP(8, vision, text), ["A dog"], None, None)["input_ids"]
    assert torch.equal(tokens, open_clip.SimpleTokenizer(context_length=12)(["a dog"]))
