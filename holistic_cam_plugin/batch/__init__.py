"""Maps of a whole data set, in a folder that survives a kill at any moment.

    inputs -> loading -> explaining -> store -> manifest -> html_report

`parameters` claims the folder for one set of parameters, `journal` writes what must survive, `ranks` shares the work
out, and `job` is the loop.
"""
