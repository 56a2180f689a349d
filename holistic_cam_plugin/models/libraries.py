"""Models of timm, transformers and open_clip, by their names there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import nn

from holistic_cam_plugin.errors import UsageError, describe_error, near_matches
from holistic_cam_plugin.models.network import find_hub, without_retries
from holistic_cam_plugin.models.processors import load_processor
from holistic_cam_plugin.models.tokens import load_tokenizer
from holistic_cam_plugin.models.weights import count_classes, load_weights, read_state_dict
from holistic_cam_plugin.names import FOLDERS, HUGGING_FACE, OPEN_CLIP, TIMM

__all__ = [
    "LOCAL",
    "BuiltModel",
    "build_open_clip",
    "build_timm",
    "build_transformers",
    "import_library",
    "report_failure",
]

LOCAL = ": give a local state dict with --weights FILE, or use --model digits, the bundled one"
_FOLDER = ": use --model hf/./FOLDER, which save_pretrained() wrote, or a model of torchvision with --weights FILE"


class BuiltModel(NamedTuple):
    """A model with its weights, and what its library knows about it.

    Attributes:
        model: the model.
        processor: the `processor` argument of `explainable`.
        size: side in pixels of the model's images; None if the model itself knows it.
        classes: class names by index; None if the model itself knows them, or nobody does.
        tokenizer: the `tokenizer` argument of `explainable`.
    """

    model: nn.Module
    processor: Any = None
    size: int | None = None
    classes: list[str] | None = None
    tokenizer: Any = None


def build_timm(name: str, weights: Path | None, untrained: bool) -> BuiltModel:
    """Build a model of timm.

    Raises:
        UsageError: as `build_model`.
    """
    timm = import_library("timm")
    bare = name.partition(".")[0]
    if ":" not in name and not timm.is_model(bare):
        raise UsageError(f"timm has no model called {bare!r}{near_matches(bare, timm.list_models())}")
    if weights is None:
        if untrained and ":" not in name:
            with report_failure(f"{TIMM}{name}"):
                return BuiltModel(timm.create_model(name, pretrained=False))
        with report_failure(f"{TIMM}{name}", LOCAL), without_retries(find_hub()):
            return BuiltModel(timm.create_model(name, pretrained=not untrained))
    state = read_state_dict(weights)
    with report_failure(f"{TIMM}{name}"):
        head = getattr(timm.get_pretrained_cfg(name), "classifier", None) or ()
        heads = [head] if isinstance(head, str) else head
        model = timm.create_model(name, num_classes=count_classes(state, [f"{head}.bias" for head in heads]))
    load_weights(model, state, weights, name)
    return BuiltModel(model)


def build_transformers(name: str, weights: Path | None) -> BuiltModel:
    """Build a classifier, or a model of images and texts, of the Hugging Face Hub or of a folder.

    Raises:
        UsageError: as `build_model`.
    """
    if weights is not None:
        raise UsageError(
            f"--model {HUGGING_FACE}{name} has weights of its own: leave out --weights. For a folder that "
            f"save_pretrained() wrote, use --model {HUGGING_FACE}./FOLDER"
        )
    transformers = import_library("transformers")
    local = name.startswith(FOLDERS)
    place = str(Path(name).expanduser()) if local else name
    if local and not Path(place).is_dir():
        raise UsageError(f"--model {HUGGING_FACE}{name}: {place} is not a folder")
    network = nullcontext() if local else without_retries(find_hub())
    with _silence(transformers), report_failure(f"{HUGGING_FACE}{name}", "" if local else _FOLDER), network:
        config = transformers.AutoConfig.from_pretrained(place, local_files_only=local)
        zero_shot = transformers.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING.get(type(config), None)
        of_texts = zero_shot is not None and zero_shot.__name__ in (config.architectures or ())
        kind = "ZeroShotImageClassification" if of_texts else "ImageClassification"
        model, loading = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(
            place, dtype=torch.float32, output_loading_info=True, local_files_only=local
        )
        processor = load_processor(place, download=not local)
        tokenizer = load_tokenizer(place, download=not local) if of_texts else None
    if lacking := sorted(map(str, loading["missing_keys"] or loading["mismatched_keys"])):
        raise UsageError(
            f"{HUGGING_FACE}{name} is not a trained classifier: its files lack {', '.join(lacking[:3])}"
            f"{', ...' if len(lacking) > 3 else ''}"
        )
    if of_texts and tokenizer is None:
        raise UsageError(f"{HUGGING_FACE}{name} has no tokenizer: save it there, too, with tokenizer.save_pretrained()")
    return BuiltModel(model, processor, tokenizer=tokenizer)


def build_open_clip(name: str, weights: Path | None, untrained: bool) -> BuiltModel:
    """Build a model of open_clip: `NAME`, `NAME/TAG` or `hf-hub:OWNER/NAME`.

    Raises:
        UsageError: as `build_model`.
    """
    open_clip = import_library("open_clip", "open_clip_torch")
    bare, _, tag = (name, "", "") if ":" in name else name.partition("/")
    if ":" not in bare and bare not in open_clip.list_models():
        raise UsageError(f"open_clip has no model called {bare!r}{near_matches(bare, open_clip.list_models())}")
    own: dict[str, Any] = {"pretrained_text": False, "load_weights": False}
    if weights is None and not untrained:
        own = _find_published(open_clip, bare, tag)
    with report_failure(f"{OPEN_CLIP}{name}", LOCAL), without_retries(find_hub()):
        model = open_clip.create_model(bare, **own)
        tokenizer = open_clip.get_tokenizer(bare)
    if weights is not None:
        load_weights(model, read_state_dict(weights), weights, name)
    return BuiltModel(model, tokenizer=tokenizer)


def _find_published(open_clip: Any, name: str, tag: str) -> dict[str, Any]:
    """Find the published weights with this tag, or the first ones."""
    if ":" in name:
        return {}
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tags or tag not in ("", *tags):
        raise UsageError(f"open_clip has no weights {tag!r} of {name}: it has {', '.join(tags) or 'none'}")
    tag = tag or tags[0]
    quick = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
    return {"pretrained": tag, "force_quick_gelu": quick}


def import_library(name: str, package: str = "") -> Any:
    """Import a library that the package does not depend on; raise UsageError if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        package = package or name.replace("_", "-")
        raise UsageError(f"this model needs {package}: pip install {package} ({describe_error(error)})") from error


@contextmanager
def report_failure(name: str, hint: str = "") -> Iterator[None]:
    """Raise whatever a library raises as a UsageError."""
    try:
        yield
    except UnpicklingError as error:
        raise UsageError(f"the weights of {name} could run code when they are loaded: refused") from error
    except Exception as error:  # libraries raise exceptions of their own types
        raise UsageError(f"{name} cannot be loaded ({describe_error(error)}){hint}") from error


@contextmanager
def _silence(transformers: Any) -> Iterator[None]:
    """Turn off the loading report and the progress bar."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
