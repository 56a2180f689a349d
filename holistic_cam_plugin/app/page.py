"""The page: its layout, and the handlers of its events."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from holistic_cam_plugin.app.calls import Page
from holistic_cam_plugin.app.choices import (
    CLASS_HOLISTIC_CAM,
    DEFAULT_SCALES,
    METHOD_NAMES,
    MOST_SCALES,
    NUMBER,
    PYRAMIDS,
    SIZES,
    WEIGHTINGS,
)
from holistic_cam_plugin.app.handlers import Handlers
from holistic_cam_plugin.app.looking import BEST
from holistic_cam_plugin.app.shown import EMPTY
from holistic_cam_plugin.names import COLORMAP, COLORMAPS, FAST, SCALES

__all__ = ["build_page"]

_DEFAULT_METHODS = ["gradcam", CLASS_HOLISTIC_CAM]

# Seconds between two removals of old files, and the age of an old file.
_DELETE_CACHE = (600, 3600)


# Characters: a text has at most some hundred.
_LONGEST_TEXTS = 20_000


class _Picture(NamedTuple):
    upload: Any
    examples: Any
    picture: Any
    best: Any
    texts: Any


class _Choices(NamedTuple):
    """In the order of the inputs of `Handlers.explain`."""

    targets: Any
    layers: Any
    methods: Any
    weightings: Any
    pyramid: Any
    num_scales: Any
    sizes: Any
    fsd: Any


class _Colours(NamedTuple):
    scale: Any
    colormap: Any
    opacity: Any


class _Outputs(NamedTuple):
    """In the order of `Shown`."""

    result: Any
    table: Any
    status: Any
    left: Any
    right: Any
    pair: Any
    which: Any
    code: Any
    figure: Any
    arrays: Any
    start: Any
    stop: Any


def build_page(handlers: Handlers) -> Page:
    """Build the page of a classifier."""
    blocks = Page(title="Holistic-CAM", analytics_enabled=False, delete_cache=_DELETE_CACHE, fill_width=True)
    with blocks:
        seen = gr.State(None)
        gr.Markdown(f"# Holistic-CAM\nWhat **{handlers.classifier.name}** looks at.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                picture = _add_picture(handlers)
                choices = _add_choices(handlers)
            with gr.Column(scale=5, min_width=320):
                with gr.Row(elem_id="run"):
                    start = gr.Button("Explain", variant="primary", min_width=120, elem_id="explain")
                    stop = gr.Button("Stop", variant="stop", min_width=80, interactive=False, elem_id="stop")
                status = gr.HTML("", elem_id="status", min_height=28)
                colours = _add_colours()
                outputs = _add_outputs(status, start, stop)
        _wire_picture(blocks, handlers, seen, picture, choices.targets, outputs)
        _wire_run(handlers, [seen, picture.texts, *choices, *colours], outputs)
        _wire_outputs(handlers, colours, outputs)
        blocks.unload(handlers.leave)
    return blocks


def _add_picture(handlers: Handlers) -> _Picture:
    upload = gr.File(label="Picture", height=125, elem_id="upload")
    examples = gr.Gallery(
        [(image, f"example {number}") for number, image in enumerate(handlers.examples, 1)], label="Examples",
        show_label=False, columns=6, fit_columns=False, height=60, allow_preview=False, interactive=False,
        buttons=[], object_fit="cover", elem_id="examples",
    )  # fmt: skip
    with gr.Row():
        picture = gr.HTML(
            label="Seen by the model", show_label=True, container=True, min_height=190, min_width=150, elem_id="picture"
        )
        best = gr.Label(label="Best classes", num_top_classes=BEST, show_heading=False, min_width=150, elem_id="best")
    texts = gr.Textbox(
        handlers.texts or "", label="Texts, one a line", lines=3, max_length=_LONGEST_TEXTS, elem_id="texts",
        visible=handlers.texts is not None, info="The picture is compared with them; they are the classes.",
    )  # fmt: skip
    _refuse_urls(upload)
    return _Picture(upload, examples, picture, best, texts)


def _refuse_urls(upload: Any) -> None:
    """Refuse a file that is given by its URL; Gradio would download it."""
    move = upload.async_move_resource_to_block_cache

    async def move_upload(path: Any) -> Any:
        if "://" in str(path):
            raise gr.Error("URLs are refused: upload a file", print_exception=False)
        return await move(path)

    upload.async_move_resource_to_block_cache = move_upload


def _add_choices(handlers: Handlers) -> _Choices:
    targets = gr.Dropdown(
        [(name, index) for index, name in enumerate(handlers.classes)], label="Classes", multiselect=True,
        elem_id="classes", info="Click one of the best, or type a name.",
    )  # fmt: skip
    others = [layer.name for layer in handlers.layers if layer.name not in handlers.stages]
    layers = gr.Dropdown(
        [*handlers.stages, *others], value=handlers.stages, label="Layers", multiselect=True, elem_id="layers"
    )
    methods = gr.Dropdown(
        [(name, method) for method, name in METHOD_NAMES.items()], value=_DEFAULT_METHODS, label="Methods",
        multiselect=True, elem_id="methods",
    )  # fmt: skip
    with gr.Accordion("Holistic-CAM: weighting, scales, mask", open=False):
        weightings = gr.CheckboxGroup(
            [(name, weighting) for weighting, name in WEIGHTINGS.items()], value=["pge"], label="Weighting",
            info="Of Holistic-CAM, one column each.", elem_id="weightings",
        )  # fmt: skip
        pyramid = gr.Radio(
            [(label, key) for key, label in PYRAMIDS.items()], value=FAST, label="Scales of the pyramid",
            info="The fast ones take a sixth of the time of the paper's seven.", elem_id="pyramid",
        )  # fmt: skip
        num_scales = gr.Slider(
            1, MOST_SCALES, DEFAULT_SCALES, step=1, label="Number of scales", visible=False, elem_id="scales"
        )
        sizes = gr.Textbox(
            label="Sizes, px", placeholder="224 366 509", max_length=80, visible=False, elem_id="sizes",
            info="The shorter side of the picture at each scale.",
        )  # fmt: skip
        pyramid.change(
            lambda chosen: (gr.update(visible=chosen == NUMBER), gr.update(visible=chosen == SIZES)), pyramid,
            [num_scales, sizes], queue=False, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        fsd = gr.Checkbox(True, label="Mask")
    return _Choices(targets, layers, methods, weightings, pyramid, num_scales, sizes, fsd)


def _add_colours() -> _Colours:
    with gr.Row(elem_id="colours"):
        scale = gr.Radio(list(SCALES), value="linear", label="Scale", scale=2, min_width=260, elem_id="scale")
        colormap = gr.Dropdown(list(COLORMAPS), value=COLORMAP, label="Colours", min_width=120, elem_id="colormap")
        opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", min_width=180, elem_id="opacity")
    return _Colours(scale, colormap, opacity)


def _add_outputs(status: Any, start: Any, stop: Any) -> _Outputs:
    with gr.Tab("Maps"):
        table = gr.HTML(EMPTY, elem_id="table")
        with gr.Row():
            figure = gr.DownloadButton("Figure (PNG)", size="md", interactive=False, elem_id="figure")
            arrays = gr.DownloadButton("Arrays (NPZ)", size="md", interactive=False, elem_id="arrays")
    with gr.Tab("Compare"):
        with gr.Row():
            left = gr.Dropdown([], label="Left", min_width=260, elem_id="left")
            right = gr.Dropdown([], label="Right", min_width=260, elem_id="right")
        pair = gr.HTML("", elem_id="pair")
    with gr.Tab("Python"):
        which = gr.Dropdown([], label="Map", elem_id="which")
        code = gr.Code(language="python", label="The same map", interactive=False, buttons=["copy"], elem_id="code")
    result = gr.State(None)
    return _Outputs(result, table, status, left, right, pair, which, code, figure, arrays, start, stop)


def _wire_picture(
    blocks: Page, handlers: Handlers, seen: Any, picture: _Picture, targets: Any, outputs: _Outputs
) -> None:
    shown = [seen, picture.picture, picture.best, targets, *outputs]
    turn: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
    for event in (picture.upload.upload, picture.upload.clear):
        event(handlers.look, [picture.upload, picture.texts], shown, **turn)
    picture.examples.select(handlers.look_at_example, picture.texts, shown, **turn)
    blocks.load(handlers.first_example, picture.texts, shown, **turn)
    for event in (picture.texts.blur, picture.texts.submit):
        event(handlers.change_texts, [seen, picture.texts], shown, **turn)
    picture.best.select(handlers.add_class, [seen, targets], targets, queue=False, api_visibility="private")


def _wire_run(handlers: Handlers, inputs: list[Any], outputs: _Outputs) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    buttons = [outputs.start, outputs.stop, outputs.status]
    outputs.start.click(handlers.begin, None, buttons, queue=False, **quiet).then(
        handlers.explain, inputs, list(outputs), show_progress_on=outputs.status, concurrency_id="model",
        concurrency_limit=1, api_visibility="private",
    ).failure(handlers.fail, None, buttons, queue=False, **quiet)  # fmt: skip
    outputs.stop.click(handlers.stop, None, outputs.status, queue=False, **quiet)


def _wire_outputs(handlers: Handlers, colours: _Colours, outputs: _Outputs) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    result, pair = outputs.result, [outputs.left, outputs.right]
    for event in (colours.scale.input, colours.colormap.input, colours.opacity.release):
        event(
            handlers.colour, [result, *pair, *colours], [outputs.table, outputs.pair], trigger_mode="always_last",
            **quiet,
        ).then(handlers.figure, [result, *colours], outputs.figure, **quiet)  # fmt: skip
    for dropdown in pair:
        dropdown.input(handlers.compare, [result, *pair, *colours], outputs.pair, **quiet)
    outputs.which.input(handlers.python, [result, outputs.which], outputs.code, **quiet)
