"""Conformance of `vc-runtime`, measured with other people's tests: `make conformance`."""
