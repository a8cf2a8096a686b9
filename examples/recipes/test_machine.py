"""Tests that damage their own machine."""

from vc_core.blocking import Pod


def test_what_would_harm_the_host_harms_nobody(machine: Pod) -> None:
    result = machine.run("sh", "-c", "rm -rf /etc; ls /etc 2>&1 | wc -l")
    assert result.exit_code == 0


def test_the_next_one_has_all_again(machine: Pod) -> None:
    assert int(machine.run("sh", "-c", "ls /etc | wc -l").stdout) > 10
