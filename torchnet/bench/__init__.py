"""Benchmark of the backend network: options, the measurement in the workers, results and findings."""
