"""The explorer: a local page in the browser that takes a picture and shows its classes and maps.

    choices, examples, pictures, rendering, downloads, snippet -> shown -> looking, handlers -> page -> server
    addresses, folder, guard, calls, theme -> server

Gradio is imported by `shown`, `looking`, `handlers`, `page`, `calls`, `theme` and `server`; only `holistic-cam app`
imports these.
"""
