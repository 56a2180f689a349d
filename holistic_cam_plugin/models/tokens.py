"""From texts to tokens, with the tokenizer of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from holistic_cam_plugin.models.processors import load_stored

__all__ = ["Tokenizer", "load_tokenizer", "tokenize"]

# A tokenizer of transformers, or any function from texts to tokens `(N, L)`.
Tokenizer = Callable[..., Any]

# The vocabulary of CLIP, which comes with open_clip.
_CLIP_VOCABULARY = 49408
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")


def tokenize(model: nn.Module, texts: Sequence[str], processor: Any, tokenizer: Tokenizer | None) -> dict[str, Tensor]:
    """Convert texts to the arguments of the model's text encoder.

    Args:
        processor: may hold a tokenizer, as those of transformers do.
        tokenizer: a tokenizer of transformers, or a function from a list of strings to token ids `(N, L)`. None: that
            of the processor, or of the folder or the cache that a model of transformers came from, or of open_clip.

    Returns:
        Tensors by name, `(N, L)` each; `input_ids` are the tokens.

    Raises:
        ValueError: there is no tokenizer, a text is too long, or the tokenizer cannot tell two texts apart.
    """
    tokenizer = tokenizer or getattr(processor, "tokenizer", None) or _find_tokenizer(model)
    if tokenizer is None:
        raise ValueError(
            f"the tokenizer of this {type(model).__name__} is not known: pass tokenizer=, a tokenizer of transformers "
            "or a function from a list of strings to token ids (N, L)"
        )
    if hasattr(tokenizer, "model_max_length"):  # of transformers
        tokens = _tokenize_transformers(model, texts, tokenizer)
    else:
        tokens = tokenizer(list(texts))
        if hasattr(tokenizer, "context_length"):  # of open_clip, which cuts what is too long
            _check_cut(tokens, texts, tokenizer)
    named = dict(tokens) if isinstance(tokens, Mapping) else {"input_ids": tokens}
    return _check_tokens({key: torch.as_tensor(ids) for key, ids in named.items()}, texts)


def load_tokenizer(name: str, *, download: bool = False) -> Any:
    """Load the tokenizer that is stored with a model of transformers; None if there is none.

    Args:
        name: a folder, or a model on the Hugging Face Hub.
        download: download it if it is not in the cache.
    """
    return load_stored("AutoTokenizer", name, _TOKENIZER_FILES, download)


def _find_tokenizer(model: Any) -> Any:
    if name := getattr(getattr(model, "config", None), "_name_or_path", ""):
        return load_tokenizer(name)
    if type(model).__module__.startswith("open_clip.") and getattr(model, "vocab_size", None) == _CLIP_VOCABULARY:
        open_clip: Any = import_module("open_clip")
        return open_clip.SimpleTokenizer(context_length=model.context_length)
    return None


def _tokenize_transformers(model: Any, texts: Sequence[str], tokenizer: Any) -> Any:
    config = getattr(getattr(model, "config", None), "text_config", None)
    longest = min(getattr(config, "max_position_embeddings", None) or 10**9, tokenizer.model_max_length)
    for one in texts:
        if (count := len(tokenizer(one, verbose=False)["input_ids"])) > longest:
            raise ValueError(f"the text {one!r:.60} has {count} tokens, but the model takes at most {longest}")
    # SigLIP was trained on texts of one length.
    if str(getattr(config, "model_type", "")).startswith("siglip"):
        return tokenizer(list(texts), padding="max_length", max_length=longest, return_tensors="pt")
    return tokenizer(list(texts), padding=True, return_tensors="pt")


def _check_cut(tokens: Tensor, texts: Sequence[str], tokenizer: Any) -> None:
    """Raise ValueError if the tokenizer cuts a text: with one token more, it would be cut elsewhere."""
    longest = tokens.shape[1]
    more = tokenizer(list(texts), context_length=longest + 1)
    for one, cut, whole in zip(texts, tokens, more, strict=True):
        if not torch.equal(cut, whole[:longest]):
            raise ValueError(f"the text {one!r:.60} has more tokens than the {longest} that the model takes")


def _check_tokens(tokens: dict[str, Tensor], texts: Sequence[str]) -> dict[str, Tensor]:
    ids = tokens.get("input_ids")
    if ids is None or ids.ndim != 2 or len(ids) != len(texts):
        found = "no input_ids" if ids is None else tuple(ids.shape)
        raise ValueError(f"the tokenizer must return token ids ({len(texts)}, L) for {len(texts)} texts, got {found}")
    rows = ids.tolist()
    for number, row in enumerate(rows):
        if row in rows[:number]:
            raise ValueError(
                f"the tokenizer cannot tell {texts[number]!r:.60} from {texts[rows.index(row)]!r:.60}: leave out one"
            )
    return tokens
