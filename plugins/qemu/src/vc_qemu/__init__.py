"""QEMU as a virtcontainers hypervisor. The plugin is `vc_qemu.plugin.QemuHypervisor`."""
