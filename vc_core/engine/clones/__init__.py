"""Machines that pods start from: templates, the pool and snapshots."""
