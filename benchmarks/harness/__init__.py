"""Shared by the experiments: arguments, data, models, methods, metrics, resumable runs and tables."""
