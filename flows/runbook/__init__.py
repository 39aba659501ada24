"""What people do to keep the data right, a folder per procedure: its flow, its steps or checks, its settings.

The door of each folder is its module `flow`. Procedures do not import each other; what two of them need stands beside
them.
"""
