"""The default seccomp filter of containers: the system calls that they may make.

Source: `containers-common.json` is pkg/seccomp/seccomp.json of github.com/containers/common v0.64.2
(Apache-2.0), the list that podman uses, unchanged. Like Docker and containerd
(docs.docker.com/engine/security/seccomp), this filter also refuses to create or enter namespaces
and to mount unless a container has CAP_SYS_ADMIN, and refuses the kernel's key rings.
"""

from vc_agent_grpc.seccomp.profile import default_filter, digest

__all__ = ["default_filter", "digest"]
