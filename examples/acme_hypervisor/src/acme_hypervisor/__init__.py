"""A hypervisor plugin for virtcontainers whose pods are namespaces of the host's kernel."""

from acme_hypervisor.options import AcmeOptions
from acme_hypervisor.plugin import AcmeHypervisor

__all__ = ["AcmeHypervisor", "AcmeOptions"]
