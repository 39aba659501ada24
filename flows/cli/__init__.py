"""The command line `python -m flows`: one file per command; `flows/__main__.py` lists them.

The top of `flows`: other entry points import `console` and `options`, and nothing else of it.
"""
