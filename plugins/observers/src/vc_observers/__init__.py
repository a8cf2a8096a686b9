"""Observers for virtcontainers: trace, metrics, policy, chaos.

Each is imported only where it is chosen.
"""
