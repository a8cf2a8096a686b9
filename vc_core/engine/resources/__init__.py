"""What a container needs of its machine: root file system, folders, devices, logs and size."""
