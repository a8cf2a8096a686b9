"""The hypervisor family: one virtual machine per pod.

Life cycle of a machine: vm_create -> vm_start -> (vm_pause <-> vm_resume) -> vm_stop -> vm_destroy.
A plugin object serves one pod in one process. There is no daemon: to take a pod over, another
process calls vm_adopt with the state that vm_export_state returned.
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
    """The operations named vm_*."""

    @operation
    async def vm_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        """Returns the optional capabilities of this driver.

        Called by the engine before anything else, in any phase. Must not need a running machine,
        and answers the same each time. Raises nothing.
        """
        raise NotImplementedError

    @operation
    async def vm_create(self, pod: PodRef, spec: VmSpec) -> None:
        """Checks that the machine can be made here and readies its runtime files; nothing runs yet.

        Called once per boot, before vm_start; the phase is absent or ended. Afterwards
        vm_export_state describes the machine. Raises HypervisorError when a binary is missing, the
        guest's files are unreadable or a value is out of range.
        """
        raise NotImplementedError

    @operation
    async def vm_start(self, pod: PodRef) -> None:
        """Starts the created machine; returns when its vCPUs run.

        The guest need not have booted by then. Called after vm_create. A machine with an
        origin resumes from its saved state, with its shares at the folders that VmSpec names.
        Afterwards the phase is running and vm_export_state describes where the machine is. The
        machine outlives the calling process. On failure no part of it is left running. Raises
        HypervisorError with the hypervisor's own error message when the machine ends during
        its start.
        """
        raise NotImplementedError

    @operation
    async def vm_status(self, pod: PodRef) -> VmStatus:
        """Returns the current state of the machine without contacting the guest.

        Called for each pod of a listing, so it must be fast. A reused process id is never taken for
        the machine. Raises nothing for an absent or dead machine.
        """
        raise NotImplementedError

    @unbounded_operation
    async def vm_wait(self, pod: PodRef) -> VmStatus:
        """Returns when the machine has ended; at once when it has, or was never started.

        Waits for an event; does not poll.
        """
        raise NotImplementedError

    @operation
    async def vm_stop(self, pod: PodRef, grace_s: float) -> VmStatus:
        """Ends the machine: allows it `grace_s` seconds to end by itself, then terminates it.

        A machine that does not react to the termination is killed. Called in any phase, with a
        `grace_s` of 0 when the guest was not asked to power off. The phase is ended or absent
        afterwards. May be called twice.
        """
        raise NotImplementedError

    @operation
    async def vm_destroy(self, pod: PodRef) -> None:
        """Removes all that vm_create and vm_start left behind; kills the machine if it still runs.

        May be called twice. An object that has neither made nor adopted a machine finds the pod's
        by itself, from what is on the host: the engine calls it so when the state that
        vm_export_state returned is lost. It must not affect the machine of another pod: ids are
        unique in a store, run folders on the host.

        The console output may stay in the pod's run folder, for vm_console; it is removed with
        the pod.
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
        """Resumes the vCPUs of a paused machine.

        The phase is paused before and running after. A vm_checkpoint that goes on although its
        caller was killed is ended, so that it does not pause the machine later. Declared by
        Capability.PAUSE.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_plug(self, pod: PodRef, device: Pluggable) -> Plugged:
        """Adds a device to a running machine; returns when the machine has accepted it.

        The guest may see the device only later. The supported kinds are declared by
        Capability.SHARE_PLUG, DRIVE_PLUG, PCI_PLUG, VHOST_USER_PLUG and NIC. The driver keeps a
        copy of a Nic's descriptor until the machine ends. Plugging the same device again replaces
        what an interrupted call left behind. Raises HypervisorError when no slot is free or the
        device is refused; nothing of it is left in the machine then.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_unplug(self, pod: PodRef, plugged: Plugged) -> None:
        """Removes a device; returns when the guest has released it.

        Its slot and id are free afterwards. A device that is not there is no error: may be called
        twice. Raises HypervisorError when the guest does not release the device within the driver's
        limit; it is still plugged then, and a later call tries again.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_resize(self, pod: PodRef, size: VmSize) -> VmSize:
        """Plugs or unplugs vCPUs and memory until the machine has these totals.

        Returns the size that the machine then has. Growing offers vCPUs and memory to the guest,
        which agent_online then takes into use; memory may be rounded up. Shrinking goes as far as
        driver and guest support, never below the size at the start, and stopping before `size` is
        no error. The phase is running. Declared by Capability.RESIZE. Raises HypervisorError when
        the machine cannot grow so far; its size is unchanged then.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_fingerprint(self, pod: PodRef, spec: VmSpec) -> str:
        """Returns a text of all properties that a machine and its clones have in common.

        The engine compares two such texts. The folders of the shares may differ between them; the
        number of shares, and the driver's program and options, are part of the text. Called before
        vm_create. Declared by Capability.CLONE. Raises the errors of vm_create.
        """
        raise NotImplementedError

    @optional_operation
    async def vm_checkpoint(self, pod: PodRef, into: Checkpoint) -> float | None:
        """Saves the machine with its memory; returns how long its vCPUs stood still, in seconds.

        A driver that does not measure that, and one that saved a template, returns None.

        The phase is running or paused before, and the same again afterwards. For a machine that was
        created with `into` as its `checkpoint_to`, the memory is already in that file
        (Capability.CLONE). Of devices it has Nics at most, which a machine that starts from it gets
        back through VmSpec.restored_devices. Any other machine is saved during its work and with
        its plugged devices (Capability.SNAPSHOT): a machine that starts from it gets them back
        through VmSpec.restored_devices, has the same size, and has none of its channels. The guest
        has closed its shares before the call (agent_quiesce).

        `into.folder` exists and is empty apart from the file of the memory. Its contents are
        complete when this returns; until then the caller keeps other users away from the folder,
        and it removes the folder when this fails. Machines whose VmSpec has this checkpoint as
        `origin` start from it, whether or not the saved machine still runs. Raises HypervisorError
        naming the device when the state of something in the machine is not supported by the
        checkpoint; the machine is unchanged then.
        """
        raise NotImplementedError

    @operation
    async def vm_shares(self, pod: PodRef) -> tuple[Plugged, ...]:
        """Returns how the guest finds the shares of VmSpec, in their order.

        The phase is running or paused.
        """
        raise NotImplementedError

    @unbounded_operation
    async def vm_open_channel(self, pod: PodRef, name: str) -> Channel:
        """Opens a new byte stream to the guest's agent, for one client of one process.

        Called by the engine with a deadline that covers the boot of the guest: returns when the
        guest has opened its side, so that the agent answers the first byte. `name` is unique in the
        pod, or FIRST_CHANNEL: the channel that exists from the start, for the first client that
        opens it; for later clients FIRST_CHANNEL is a name like any other. Raises HypervisorError
        when the machine ends meanwhile.
        """
        raise NotImplementedError

    @operation
    async def vm_close_channel(self, pod: PodRef, channel: Channel) -> None:
        """Removes a channel on both sides.

        A channel or machine that is gone is no error: may be called twice.
        """
        raise NotImplementedError

    @operation
    async def vm_console(self, pod: PodRef, tail_bytes: int) -> bytes:
        """Returns the last bytes that the guest's kernel wrote to its console.

        Also works for a machine that has ended. Called by `Pod.console`, and to report the cause
        when a machine fails to boot. The phase is any; the output of a pod without a console is
        empty. Returns at most `tail_bytes` bytes.
        """
        raise NotImplementedError

    @operation
    async def vm_stats(self, pod: PodRef) -> VmStats:
        """Returns the machine's use of host resources.

        The phase is running or paused, else HypervisorError.
        """
        raise NotImplementedError

    @operation
    async def vm_export_state(self, pod: PodRef) -> DriverState:
        """Returns the state that vm_adopt needs in another process.

        Called after each change of the machine, so it must be cheap.
        """
        raise NotImplementedError

    @operation
    async def vm_adopt(self, pod: PodRef, state: DriverState) -> None:
        """Takes over the machine that `state` describes.

        Called first on a new plugin object, and again whenever another process has changed the
        machine. The state may have been exported under another PodRef, that of a pool: the
        machine's files stay where they are, and vm_destroy removes them there.

        Must not touch the machine, which may have ended. Raises HypervisorError for a state that
        this driver cannot read.
        """
        raise NotImplementedError

    @operation
    async def vm_diagnose(self, guests: tuple[Guest, ...]) -> tuple[Finding, ...]:
        """Reports whether this host is fit for the driver: binaries, acceleration, permissions.

        Belongs to no pod. `guests` are the guest images, the current one first; a check that
        requires a boot boots that one.
        """
        raise NotImplementedError
