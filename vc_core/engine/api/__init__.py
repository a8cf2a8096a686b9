"""The public API: runtime, pods, containers, processes, files and events."""
