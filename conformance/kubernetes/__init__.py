"""A Kubernetes of one node, with runtimes as its handlers."""
