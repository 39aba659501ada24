"""A property test of the product: generated projects and histories, each command held against what it should have done.

`world.py` is a project and what can happen to it, `files.py` its files, `history.py` what is done with it, `rows.py`
what has to come of that, `doors.py` how a command is run, `cases.py` a whole history, and `__main__.py` many of them.
"""
