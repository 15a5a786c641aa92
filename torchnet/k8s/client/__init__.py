"""The Kubernetes API client: the only package that imports `kubernetes` and `urllib3`."""
