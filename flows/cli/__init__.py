"""The commands of `python -m flows`, one module each; flows/__main__.py lists them."""
