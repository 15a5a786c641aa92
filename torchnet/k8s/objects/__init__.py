"""Renders the Kubernetes objects of a run: the same inputs give the same bytes."""
