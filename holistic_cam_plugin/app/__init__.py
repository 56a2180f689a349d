"""The explorer: a local page in the browser. A picture goes in, its classes and maps come out.

    choices -> explaining -> rendering, files, snippet -> handlers -> page -> server

Only the last three know Gradio, and nothing but the command imports them: the package does without it.
"""
