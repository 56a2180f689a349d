"""The explorer: a local page in the browser that takes a picture and shows its classes and maps.

    choices, examples, rendering, downloads, snippet -> handlers -> page -> server

Only the last three modules import Gradio, and only `holistic-cam app` imports them.
"""
