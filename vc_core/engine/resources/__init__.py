"""What a container needs from its machine: root file system, folders, devices, logs and size."""
