"""dbt's artifacts: manifest and results as typed values. The place that knows their JSON. Imports `context` alone."""
