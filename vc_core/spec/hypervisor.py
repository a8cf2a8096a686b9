"""The hypervisor family: one virtual machine per pod.

Life of a machine: vm_create -> vm_start -> (vm_pause <-> vm_resume) -> vm_stop -> vm_destroy. A
plugin object serves one pod in one process. Another process takes the pod over: it calls vm_adopt
with what vm_export_state returned. There is no daemon.
"""

from __future__ import annotations

from vc_core.spec.markers import operation, optional_operation, unbounded_operation
from vc_core.spec.values import (
    Capability,
    Channel,
    Checkpoint,
    DriverState,
    Finding,
    Guest,
    Pluggable,
    Plugged,
    PodRef,
    VmSize,
    VmSpec,
    VmStats,
    VmStatus,
)


class HypervisorSpec:
    """Operations named vm_*."""

    @operation
    async def vm_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        """Says what this driver can do beyond what all must.

        Called by the engine before anything else, in any phase. Must not need a running machine,
        and answers the same each time. Raises nothing.
        """
        raise NotImplementedError

    @operation
    async def vm_create(self, pod: PodRef, spec: VmSpec) -> None:
        """Checks that the machine can be made here and readies its runtime files; nothing runs yet.

        Called once per boot, before vm_start; the phase is absent or ended. Afterwards
        vm_export_state describes the machine. Raises HypervisorError when a binary is missing, the
        guest's files are unreadable or a value is impossible.
        """
        raise NotImplementedError

    @operation
    async def vm_start(self, pod: PodRef) -> None:
        """Starts the created machine; returns when its vCPUs run. The guest need not be up yet.

        Called after vm_create. One with an origin goes on where that was saved; its shares are
        where VmSpec says now. Afterwards the phase is running and vm_export_state describes where
        the machine is. The machine outlives the calling process. On failure nothing of it is left
        running. Raises HypervisorError with the machine's own words when it dies.
        """
        raise NotImplementedError

    @operation
    async def vm_status(self, pod: PodRef) -> VmStatus:
        """Tells the truth about the machine now, without talking to the guest. Fast; called for
        each pod of a listing.

        A reused process id is never taken for the machine. Raises nothing for an absent or dead
        machine.
        """
        raise NotImplementedError

    @unbounded_operation
    async def vm_wait(self, pod: PodRef) -> VmStatus:
        """Returns when the machine has ended; at once when it has, or never began.

        Waits for an event.
        """
        raise NotImplementedError

    @operation
    async def vm_stop(self, pod: PodRef, grace_s: float) -> VmStatus:
        """Ends the machine: it is given `grace_s` seconds to end by itself, then it is ended, then
        killed.

        Called in any phase, with 0 when the guest was not asked to end. The phase is ended or
        absent afterwards. May be called twice.
        """
        raise NotImplementedError

    @operation
    async def vm_destroy(self, pod: PodRef) -> None:
        """Removes all that vm_create and vm_start left behind; kills the machine if it still runs.
        May be called twice.

        An object that has neither made nor adopted a machine finds the pod's by itself, by what is
        on the host: it is called when what vm_export_state returned is lost. No pod but this one
        may lose its machine by that: ids are unique in a store, run folders on the host.

        What its console said may stay in the pod's run folder, for vm_console; that goes with the
        pod.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_pause(self, pod: PodRef) -> None:
        """Stops the vCPUs; the machine keeps its memory and devices.

        The phase is running before and paused after. Declared by Capability.PAUSE.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_resume(self, pod: PodRef) -> None:
        """Lets the stopped vCPUs of a paused machine run.

        The phase is paused before and running after. Declared by Capability.PAUSE.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_plug(self, pod: PodRef, device: Pluggable) -> Plugged:
        """Adds a device to a running machine; returns when that has accepted it, which is before
        the guest sees it.

        Which kinds are possible is declared by Capability.SHARE_PLUG, DRIVE_PLUG, PCI_PLUG and
        VHOST_USER_PLUG. Plugging it again replaces what a call has left that was interrupted before
        its answer was known. Raises HypervisorError when no place is free or the device is refused;
        nothing is left of it then.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_unplug(self, pod: PodRef, plugged: Plugged) -> None:
        """Removes a device; returns when the guest has let it go. Its place and id are free
        afterwards.

        A device that is not there is no error: may be called twice. Raises HypervisorError when the
        guest keeps it beyond the driver's limit; it is still plugged then, and a later call tries
        again.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_resize(self, pod: PodRef, size: VmSize) -> VmSize:
        """Plugs or unplugs vCPUs and memory until the machine has these totals; returns what it has
        then.

        Growing offers to the guest what agent_online then takes; memory may be rounded up.
        Shrinking goes as far as driver and guest can, never below the size at the start, and is no
        error when it stops before. The phase is running. Declared by Capability.RESIZE. Raises
        HypervisorError when the machine cannot grow so far; it is as before then.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_fingerprint(self, pod: PodRef, spec: VmSpec) -> str:
        """All that shapes a machine and cannot change when it starts from a saved one, as text for
        comparing.

        The shares' folders can change; their number, and the driver's program and options, are part
        of it. Called before vm_create. Declared by Capability.CLONE. Raises as vm_create.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_checkpoint(self, pod: PodRef, into: Checkpoint) -> None:
        """Saves the machine with its memory.

        The phase is running or paused before, and the same again afterwards. Where the machine was
        made with `checkpoint_to` as `into`, its memory lies there already (Capability.CLONE). Any
        other machine is saved as it is, in the middle of its work and with what was plugged
        (Capability.SNAPSHOT): one that starts from it gets that back by VmSpec.restored_devices, is
        as large, and has none of its channels. The guest has let go of its shares before
        (agent_quiesce).

        `into.folder` exists and is empty but for the memory's file. What is written there is
        complete when this returns; the caller keeps others from it until then, and removes it when
        this fails. Machines whose VmSpec names it as `origin` start from it, this one alive or not.
        Raises HypervisorError when something in the machine cannot be saved, naming it; the machine
        is as before.
        """
        raise NotImplementedError

    @operation
    async def vm_shares(self, pod: PodRef) -> tuple[Plugged, ...]:
        """How the guest finds the shares of VmSpec, in their order.

        The phase is running or paused.
        """
        raise NotImplementedError

    @unbounded_operation
    async def vm_open_channel(self, pod: PodRef, name: str) -> Channel:
        """Makes a fresh byte stream to the guest's agent, for one client of one process.

        Called by the engine under its own deadline, which covers the guest's boot: returns when the
        guest has opened its side, so that the first byte is answered. `name` is unique in the pod,
        or FIRST_CHANNEL: then it is the channel that is there from the start, for the first who
        asks; for all others that is like any name. Raises HypervisorError when the machine ends
        meanwhile.
        """
        raise NotImplementedError

    @operation
    async def vm_close_channel(self, pod: PodRef, channel: Channel) -> None:
        """Removes a channel from both sides.

        A channel or machine that is gone is no error: may be called twice.
        """
        raise NotImplementedError

    @operation
    async def vm_console(self, pod: PodRef, tail_bytes: int) -> bytes:
        """The last bytes that the guest's kernel wrote to its console; also of a machine that has
        ended.

        Called by `Pod.console`, and when a machine does not come up, to say why. The phase is any;
        a pod without a console has an empty one. Returns at most `tail_bytes` bytes.
        """
        raise NotImplementedError

    @operation
    async def vm_stats(self, pod: PodRef) -> VmStats:
        """Use of the host by the machine. The phase is running or paused, else HypervisorError."""
        raise NotImplementedError

    @operation
    async def vm_export_state(self, pod: PodRef) -> DriverState:
        """Returns what vm_adopt needs in another process.

        Called after each change of the machine; cheap.
        """
        raise NotImplementedError

    @operation
    async def vm_adopt(self, pod: PodRef, state: DriverState) -> None:
        """Takes over the machine that `state` describes.

        Called first on a fresh plugin object, and again whenever another process has changed the
        machine. The state may have been exported under another PodRef, of a pool: the machine's
        files stay where they are, and vm_destroy removes them there.

        Must not touch the machine: it may be dead, and reading never harms. Raises HypervisorError
        for a state that this driver cannot read.
        """
        raise NotImplementedError

    @operation
    async def vm_diagnose(self, guests: tuple[Guest, ...]) -> tuple[Finding, ...]:
        """What a user should know about this host: binaries, acceleration, permissions. Belongs to
        no pod.

        `guests` are the guest images, the current one first: what can only be proven by booting is
        proven with that.
        """
        raise NotImplementedError
