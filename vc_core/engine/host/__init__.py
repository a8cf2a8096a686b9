"""Work on the host: mounts, disks, archives and hooks."""
