"""Networks of pods: what they share, and the plugin `pasta`."""
