"""The command `vc-runtime`: pods under podman, containerd and Kubernetes."""
