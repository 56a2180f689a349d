"""The command line, in the order in which a run goes: arguments -> explain or batch -> figure or report.

Nothing imports it but `__main__`.
"""
