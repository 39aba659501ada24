"""What every part of a run is told: project, command, folders, events, time limit, who is watching.

Imports the infrastructure alone.
"""
