"""The jail of QEMU: what somebody can reach who has broken into it."""
