"""Maps of a whole data set in one folder; a run can be killed at any moment and resumed.

    inputs -> loading -> failures -> store -> manifest

`parameters` reserves the output folder for one set of parameters, `journal` writes tables that survive a kill, `ranks`
divides the work between processes, and `run` is the main loop.
"""

__all__ = ["RESUME"]

RESUME = "finished maps are saved; run the same command again to continue"
