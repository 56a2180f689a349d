"""The commands: `explain` (the default), `batch`, `report` and `app`, one per module, and what they share.

Only `__main__` imports this package.
"""
