"""One call on a pod: its lock, its records, its plugins and the state of its machine."""
