"""The history: what every run did, one small Parquet file per run, read with SQL."""
