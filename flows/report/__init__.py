"""Reports of runs for people: on a terminal, as artifacts in Prefect, and as an HTML page from the history.

Imports the engine's results and the history; never a pipeline, which calls it.
"""
