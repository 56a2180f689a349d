"""Maps of a whole data set in one folder; a run can be killed at any moment and resumed.

    inputs -> loading -> failures -> engine -> run -> record -> tables

`engine` turns a batch of rows into rows with maps, in any framework; `run` is the loop of `holistic-cam batch` around
it, and `record` the database that it writes. `parameters` reserves an output folder for one set of parameters.
"""
