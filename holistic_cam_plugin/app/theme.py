"""The look of the page."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors

__all__ = ["CSS", "SCRIPT", "make_theme"]

CSS = Path(__file__).with_name("page.css")
SCRIPT = Path(__file__).with_name("page.js")


def make_theme() -> gr.themes.Base:
    """Gradio's default in the system's fonts, with colours that give all texts a contrast of 4.5 and more."""
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_400",
        color_accent="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_cancel_background_fill=colors.red.c700,
        button_cancel_background_fill_hover=colors.red.c800,
    )
