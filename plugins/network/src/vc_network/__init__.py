"""Networks of pods: common code, and the plugin `pasta`."""
