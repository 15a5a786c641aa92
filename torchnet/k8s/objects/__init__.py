"""The Kubernetes objects of a run, rendered: pure, and the same bytes for the same arguments."""
