"""What the experiments share: arguments, data, models, methods, measures, the resumable run, tables and figures.

It imports no experiment.
"""
