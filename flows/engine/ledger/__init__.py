"""The record of a run: every node event on disk, what it came to, what is left undone, and what can be tried again."""
