"""The decision log: journals turned into Parquet by a process of its own, and read with SQL."""
