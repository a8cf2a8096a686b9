"""Checks the limits of a pod's network: destinations and rates."""

from __future__ import annotations

from msgspec import structs

from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import NOT_PUBLIC, NetworkPolicy, NetworkRule, Reach

_MOST_RULES = 200


def completed(policy: NetworkPolicy, configured: NetworkPolicy) -> NetworkPolicy:
    """Returns `policy`, with the configured value for each field that is empty.

    So an option that limits one thing never takes away a configured limit of another.
    """
    given = {name: value for name, value in structs.asdict(policy).items() if value}
    return structs.replace(configured, **given)


def check(reach: Reach, policy: NetworkPolicy) -> None:
    """Refuses limits that make no sense or would not hold.

    Raises:
        InvalidRequest: says which.
    """
    rules = (*policy.allow, *policy.deny)
    if len(rules) > _MOST_RULES:
        raise InvalidRequest(
            f"{len(rules)} rules are too many; a pod's network has at most {_MOST_RULES}"
        )
    for rule in rules:
        if NetworkRule.of(str(rule)) != rule:
            raise InvalidRequest(f"{rule!r} is no rule; make it by NetworkRule.of")
    NetworkPolicy.of(rate_in=_rate(policy.bits_in), rate_out=_rate(policy.bits_out))
    for rule in policy.allow:
        _check_reach(reach, rule)
    for rule in policy.deny:
        if rule.network is None:
            _check_exception(rule, policy)


def _check_reach(reach: Reach, rule: NetworkRule) -> None:
    allowed = rule.network
    if reach is Reach.PUBLIC and allowed is not None:
        for refused in NOT_PUBLIC:
            if allowed.version == refused.version and allowed.subnet_of(refused):  # type: ignore[arg-type]
                raise InvalidRequest(
                    f"{rule} cannot be allowed: {refused} is not public; use the network full, "
                    "and allow what the pod may reach"
                )


def _check_exception(rule: NetworkRule, policy: NetworkPolicy) -> None:
    """A denied name does not hold against a pod that reaches its addresses without a look-up."""
    one = rule.target.replace("*", "x")
    networks = [other.network for other in policy.allow if other.network is not None]
    is_exception = any(other.covers(one) for other in policy.allow if other.network is None)
    if not is_exception or any(network.prefixlen == 0 for network in networks):
        raise InvalidRequest(
            f"the name {rule} cannot be denied alone: the pod would reach its addresses without "
            "the name. Allow the names that it may reach, of which this one is an exception, or "
            "deny addresses"
        )
    if rule.first_port or rule.protocol:
        raise InvalidRequest(f"{rule}: a name is denied with all of its ports")


def _rate(bits: int) -> str:
    return str(bits) if bits else ""
