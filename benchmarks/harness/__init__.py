"""What the experiments share: arguments, data, models, methods, candidates, measures, the resumable run, tables.

It imports no experiment.
"""
