"""What every run did, kept as one small Parquet file per run and read with SQL."""
