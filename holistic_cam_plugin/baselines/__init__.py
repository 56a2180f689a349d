"""Competing methods, and all methods by name."""
