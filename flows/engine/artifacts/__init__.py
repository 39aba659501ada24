"""dbt's artifacts as typed values: `Artifacts` of a folder, its `Manifest`, what came of each node.

The only place that knows their JSON, and so what a node is made from. Imports `context` alone.
"""
