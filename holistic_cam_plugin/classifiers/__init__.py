"""A classifier by its name: the model with its weights, its layers, its images, its classes.

It knows no method and no command line; whatever the user can correct is a `UsageError`.
"""
