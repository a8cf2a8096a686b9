"""The plugin `cni`: networks by the plugins of the Container Network Interface."""
