"""The stored records of pods and containers, and the transitions of their states."""
