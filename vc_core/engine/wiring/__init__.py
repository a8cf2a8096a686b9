"""Finds and configures plugins, and wires them to operations."""
