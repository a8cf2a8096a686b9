"""Plugins: found, configured and wired to operations."""
