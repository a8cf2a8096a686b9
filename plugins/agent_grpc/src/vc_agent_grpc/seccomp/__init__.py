"""The default seccomp filter of containers: which system calls they may make.

Source: `containers-common.json` is pkg/seccomp/seccomp.json of github.com/containers/common v0.64.2
(Apache-2.0), the list that podman uses, unchanged. Docker and containerd also refuse to make or
enter namespaces and to mount unless a container has CAP_SYS_ADMIN, and refuse the kernel's key
rings; so do we (docs.docker.com/engine/security/seccomp).
"""

from vc_agent_grpc.seccomp.profile import default_filter, digest

__all__ = ["default_filter", "digest"]
