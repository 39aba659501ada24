"""What every part of a run gets: project, command, folders, events, time limit, reporter.

Imports the infrastructure alone.
"""
