"""The page: its layout, and the handlers of its events."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from holistic_cam_plugin.app.choices import CLASS_HOLISTIC_CAM, DEFAULT_SCALES, METHOD_NAMES, MOST_SCALES, WEIGHTINGS
from holistic_cam_plugin.app.handlers import BEST, Handlers
from holistic_cam_plugin.display import COLORMAPS, SCALES

__all__ = ["CSS", "build_page"]

CSS = Path(__file__).with_name("page.css")

_DEFAULT_METHODS = ["gradcam", CLASS_HOLISTIC_CAM]
_EMPTY = '<p class="hint">Choose a picture and what to explain of it, then press <b>Explain</b>.</p>'

# Seconds between two removals of old files, and the age of an old file.
_DELETE_CACHE = (600, 3600)


class _Picture(NamedTuple):
    upload: Any
    examples: Any
    picture: Any
    best: Any


class _Choices(NamedTuple):
    """In the order of the inputs of `Handlers.explain`."""

    targets: Any
    layers: Any
    methods: Any
    weightings: Any
    num_scales: Any
    sizes: Any
    fsd: Any


class _Colours(NamedTuple):
    scale: Any
    colormap: Any
    opacity: Any


class _Outputs(NamedTuple):
    table: Any
    left: Any
    right: Any
    pair: Any
    which: Any
    code: Any
    figure: Any
    arrays: Any


def build_page(handlers: Handlers) -> gr.Blocks:
    """Build the page of a classifier."""
    blocks = gr.Blocks(title="Holistic-CAM", analytics_enabled=False, delete_cache=_DELETE_CACHE, fill_width=True)
    with blocks:
        seen, result = gr.State(None), gr.State(None)
        gr.Markdown(f"# Holistic-CAM\nWhat **{handlers.classifier.name}** looks at.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                picture = _add_picture(handlers)
                choices = _add_choices(handlers)
            with gr.Column(scale=5, min_width=320):
                with gr.Row(elem_id="run"):
                    start = gr.Button("Explain", variant="primary", min_width=120, elem_id="explain")
                    stop = gr.Button("Stop", variant="stop", min_width=80, interactive=False, elem_id="stop")
                status = gr.Markdown("", elem_id="status", min_height=28)
                colours = _add_colours()
                outputs = _add_outputs()
        _wire_picture(blocks, handlers, picture, [seen, picture.picture, picture.best, choices.targets])
        picture.best.select(handlers.add_class, choices.targets, choices.targets, queue=False, api_visibility="private")
        _wire_run(handlers, seen, result, choices, colours, outputs, (start, stop, status))
        _wire_outputs(handlers, result, colours, outputs)
        blocks.unload(handlers.leave)
    return blocks


def _add_picture(handlers: Handlers) -> _Picture:
    upload = gr.File(label="Picture", height=125, elem_id="upload")
    examples = gr.Gallery(
        handlers.examples, label="Examples", show_label=False, columns=6, fit_columns=False, height=60,
        allow_preview=False, interactive=False, buttons=[], object_fit="cover", elem_id="examples",
    )  # fmt: skip
    with gr.Row():
        picture = gr.Image(
            label="Seen by the model", interactive=False, buttons=[], height=190, min_width=150, elem_id="picture"
        )
        best = gr.Label(label="Best classes", num_top_classes=BEST, show_heading=False, min_width=150, elem_id="best")
    _refuse_urls(upload)
    return _Picture(upload, examples, picture, best)


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
        num_scales = gr.Slider(1, MOST_SCALES, DEFAULT_SCALES, step=1, label="Scales of the pyramid")
        sizes = gr.Textbox(
            "fast", label="Or its sizes, px", placeholder="224 366 509", max_length=80, elem_id="sizes",
            info="fast: 3 scales, a sixth of the paper's pixels. Empty: as many of the paper's as above.",
        )  # fmt: skip
        fsd = gr.Checkbox(True, label="Mask")
    return _Choices(targets, layers, methods, weightings, num_scales, sizes, fsd)


def _add_colours() -> _Colours:
    with gr.Row(elem_id="colours"):
        scale = gr.Radio(list(SCALES), value="linear", label="Scale", scale=2, min_width=260, elem_id="scale")
        colormap = gr.Dropdown(list(COLORMAPS), value="jet", label="Colours", min_width=120, elem_id="colormap")
        opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", min_width=180, elem_id="opacity")
    return _Colours(scale, colormap, opacity)


def _add_outputs() -> _Outputs:
    with gr.Tab("Maps"):
        table = gr.HTML(_EMPTY, elem_id="table")
        with gr.Row():
            figure = gr.DownloadButton("Figure (PNG)", size="md", interactive=False, elem_id="figure")
            arrays = gr.DownloadButton("Arrays (NPZ)", size="md", interactive=False, elem_id="arrays")
    with gr.Tab("Compare"):
        with gr.Row():
            left = gr.Dropdown([], label="Left", min_width=260, elem_id="left")
            right = gr.Dropdown([], label="Right", min_width=260, elem_id="right")
        pair = gr.ImageSlider(
            label="Two maps", show_label=False, interactive=False, max_height=600, buttons=["fullscreen"], format="png",
            elem_id="pair",
        )  # fmt: skip
    with gr.Tab("Python"):
        which = gr.Dropdown([], label="Map", elem_id="which")
        code = gr.Code(language="python", label="The same map", interactive=False, buttons=["copy"], elem_id="code")
    return _Outputs(table, left, right, pair, which, code, figure, arrays)


def _wire_picture(blocks: gr.Blocks, handlers: Handlers, picture: _Picture, outputs: list[Any]) -> None:
    turn: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
    picture.upload.upload(handlers.look, picture.upload, outputs, **turn)
    picture.examples.select(handlers.look_at_example, None, outputs, **turn)
    blocks.load(handlers.first_example, None, outputs, **turn)


def _wire_run(
    handlers: Handlers,
    seen: Any,
    result: Any,
    choices: _Choices,
    colours: _Colours,
    outputs: _Outputs,
    run: tuple[Any, Any, Any],
) -> None:
    start, stop, status = run
    start.click(
        handlers.begin, None, [start, stop, status], queue=False, show_progress="hidden", api_visibility="private"
    ).then(
        handlers.explain, [seen, *choices, *colours], [result, outputs.table, status], show_progress_on=status,
        concurrency_id="model", concurrency_limit=1, api_visibility="private",
    ).then(
        handlers.end, [result, *colours],
        [start, stop, outputs.left, outputs.right, outputs.pair, outputs.which, outputs.code],
        show_progress="hidden", api_visibility="private",
    ).then(
        handlers.files, [result, *colours], [outputs.figure, outputs.arrays], show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip
    stop.click(handlers.stop, None, status, queue=False, show_progress="hidden", api_visibility="private")


def _wire_outputs(handlers: Handlers, result: Any, colours: _Colours, outputs: _Outputs) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    pair = [outputs.left, outputs.right]
    for event in (colours.scale.input, colours.colormap.input, colours.opacity.release):
        event(
            handlers.colour, [result, *pair, *colours], [outputs.table, outputs.pair], trigger_mode="always_last",
            **quiet,
        ).then(handlers.files, [result, *colours], [outputs.figure, outputs.arrays], **quiet)  # fmt: skip
    for dropdown in pair:
        dropdown.input(handlers.compare, [result, *pair, *colours], outputs.pair, **quiet)
    outputs.which.input(handlers.python, [result, outputs.which], outputs.code, **quiet)
