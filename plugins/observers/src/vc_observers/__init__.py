"""Observers for virtcontainers: trace, metrics, policy, chaos.

Each is imported only if it is configured.
"""
