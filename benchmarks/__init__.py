"""What this project costs, each number beside its floor in the same run. `make bench` runs all."""
