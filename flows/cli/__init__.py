"""The command line `python -m flows`: one file per command; `flows/__main__.py` lists them.

The top of `flows`: nothing in it is imported from elsewhere, but `console` and `options` by other entry points.
"""
