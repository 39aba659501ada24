"""The command line `tributary`: a file per command, or per commands of one shape; `flows/__main__.py` lists them.

The top of `flows`: other entry points import `console` and `options`, and nothing else of it.
"""
