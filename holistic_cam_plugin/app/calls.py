"""Calls of the page's functions, and their checks."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr
from pydantic import ValidationError

from holistic_cam_plugin.app.guard import RequestError

__all__ = ["Page"]


class Page(gr.Blocks):
    """Gradio's page; values that it does not send are refused without a traceback."""

    def check_call(self, call: dict[str, Any]) -> None:
        """Raise `RequestError` for a call of a function that does not exist, or with values of other types."""
        number, data, event = (call.get(name) for name in ("fn_index", "data", "event_data"))
        function = self.fns.get(number) if type(number) is int else None
        if function is None or not isinstance(call.get("session_hash"), str):
            raise RequestError("there is no such function or session", 422)
        selects = any(name == "select" for _, name in function.targets)
        chosen = isinstance(event, dict) and {"index", "value"} <= event.keys()
        if not isinstance(data, list) or len(data) != len(function.inputs) or (selects and not chosen):
            raise RequestError("the function takes other data", 422)
        for component, value in zip(function.inputs, data, strict=True):
            model = getattr(component, "data_model", None)
            try:
                if value is not None and model is not None:
                    model.model_validate(value)
            except ValidationError as error:
                raise RequestError("the function takes other data", 422) from error

    async def preprocess_data(self, *args: Any, **kwargs: Any) -> Any:
        """Convert a function's inputs; what the components do not take is an error without a traceback."""
        try:
            return await super().preprocess_data(*args, **kwargs)
        except Exception as error:
            message = error.message if isinstance(error, gr.Error) else "a value is not valid"
            raise gr.Error(html.escape(message), print_exception=False) from error
