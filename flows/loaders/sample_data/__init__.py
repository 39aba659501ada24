"""Sample data for the domains marketing and payroll, as Airbyte would have loaded it."""

from flows.loaders.sample_data.writer import SampleDataResult, count_sample_rows, write_sample_data

__all__ = ["SampleDataResult", "count_sample_rows", "write_sample_data"]
