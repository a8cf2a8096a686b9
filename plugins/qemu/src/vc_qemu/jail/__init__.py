"""The jail of QEMU: limits what an attacker who has taken over QEMU can reach."""
