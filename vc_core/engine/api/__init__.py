"""What programs call: runtime, pods, containers, processes, files and events."""
