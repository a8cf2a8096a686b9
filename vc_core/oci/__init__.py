"""Makes containers from OCI bundles. Settings of config.json that are not supported are refused.

The format is https://github.com/opencontainers/runtime-spec, config.md and config-linux.md.
"""

from vc_core.oci.annotations import ContainerType
from vc_core.oci.bundle import Bundle, load
from vc_core.oci.create import create, state

__all__ = ["Bundle", "ContainerType", "create", "load", "state"]
