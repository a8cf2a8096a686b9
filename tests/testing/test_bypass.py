"""The attempts to get around a policy, and the table of them in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from vc_core.spec import PortMapping
from vc_core.testing import Outside, attempts

SECURITY = Path(__file__).parents[2] / "docs/security.md"
OUTSIDE = Outside(
    ("198.51.100.1", "2001:db8::1"),
    ("198.51.100.20", "2001:db8::20"),
    "198.51.100.30",
    "10.20.30.40",
    ("198.51.100.2", "2001:db8::2"),
    frozenset,
    frozenset,
)


def test_the_documentation_lists_what_is_tried():
    tried = list(attempts(OUTSIDE, "192.0.0.1", PortMapping(guest_port=80, host_port=8080)))
    section = SECURITY.read_text().partition("| the guest tries |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE)
    assert rows == list(dict.fromkeys(one.kind for one in tried if not one.is_allowed))
    assert len({one.name for one in tried}) == len(tried)
