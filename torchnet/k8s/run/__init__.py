"""A run on Kubernetes: submission, monitoring, logs, outcome, deletion."""
