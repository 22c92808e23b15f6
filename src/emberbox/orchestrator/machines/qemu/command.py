"""The QEMU command line.

Every file, socket and tap reaches QEMU as an inherited descriptor: its uid can open none of
them by path, and its seccomp filter forbids it to spawn a helper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.images.clock import software_clock_is_known
from emberbox.orchestrator.network.addresses import GUEST_MAC

if TYPE_CHECKING:
    from emberbox.orchestrator.machines.driver import Hardware

# suppress-vmdesc: device state is saved without a description of itself, whose absence QEMU would
# complain of at each loading.
MACHINE = (
    "microvm,x-option-roms=off,rtc=on,pic=on,isa-serial=on,memory-backend=ram,suppress-vmdesc=on"
)

# A named CPU, so that a snapshot means the same on the next host. What software emulation lacks
# of it is switched off by name, which keeps QEMU's warnings for what is new.
CPU_SOFTWARE = "Haswell-v4,-pcid,-x2apic,-tsc-deadline,-invpcid,-spec-ctrl"
CPU_HARDWARE = "Haswell-v4"

# Translated code, per VM: enough for an interpreter and a shell; larger costs memory in each VM.
TRANSLATION_CACHE_MB = 64

# panic=-1 and reboot=t end a broken guest at once; -no-shutdown then keeps the VMM, stopped, so
# that the console can still be read.
KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=3 panic=-1 reboot=t i8042.noaux i8042.nokbd"
    " random.trust_cpu=on audit=0"
)

# What is on the way of every file that is opened, every program that is started and every switch
# between two, and is of no use here: policies that nobody loads, statistics of how long was waited
# for what, and watching for a kernel that hangs, which a starved one seems to. All of that is code
# to be translated, in each clone anew.
KERNEL_LEAN = "lsm=landlock,yama psi=0 nowatchdog"

# Guest code never runs as it is under emulation: page tables are software, and indirect jumps go
# through the emulator. What the kernel does against leaks of real processors guards nothing there
# and takes a fifth of every command's time. Translated code is kept by its address: a program that
# lies elsewhere each time it runs is translated anew, which is three quarters of its start.
KERNEL_SOFTWARE = f" mitigations=off norandmaps {KERNEL_LEAN}"

ON_ERROR = "werror=report,rerror=report"

CONSOLE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk by its serial number, which is how the guest finds it."""

    serial: str
    fd: int
    read_only: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """Guest memory: a memory file, the guest's own (`share`) or the image that it is a clone of."""

    fd: int
    share: bool


@dataclass(frozen=True, slots=True)
class Kernel:
    """What a cold boot loads. A restored VM has none: its RAM holds the running kernel already.

    `clock` is what the guest kernel is told of this host's clock.
    """

    kernel_fd: int
    initrd_fd: int
    clock: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """All that one VMM is started with; numbers ending in fd are inherited descriptors."""

    name: str
    accelerator: str
    hardware: Hardware
    memory: Memory
    monitor_fd: int
    tap_fd: int
    disks: tuple[Disk, ...]
    kernel: Kernel | None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the VMM's process must inherit."""
        kernel = (self.kernel.kernel_fd, self.kernel.initrd_fd) if self.kernel else ()
        disks = (disk.fd for disk in self.disks)
        return (self.memory.fd, self.monitor_fd, self.tap_fd, *disks, *kernel)

    def argv(self, binary: str) -> list[str]:
        """The arguments, `binary` first."""
        return [
            binary,
            *("-name", self.name),
            *("-M", f"{MACHINE},pit={self._pit()}"),
            *self._processor(),
            *self._memory(),
            *self._kernel(),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-no-reboot", "-no-shutdown"),
            # Device state is saved without this section, so it must not be asked for at loading.
            *("-global", "migration.send-configuration=off"),
            *self._monitor(),
            *("-chardev", f"ringbuf,id=console,size={CONSOLE_BYTES}"),
            *("-serial", "chardev:console"),
            *(
                argument
                for number, disk in enumerate(self.disks)
                for argument in _disk(number, disk)
            ),
            *self._network(),
            # Host entropy in the guest; /init adds a seed of its own to every clone.
            *("-object", "rng-builtin,id=rng", "-device", "virtio-rng-device,rng=rng"),
            *_sandbox(),
        ]

    def _pit(self) -> str:
        """A PIT that the guest does not use ticks all the same, and wakes QEMU 36 times a second:
        more than half of what an idle sandbox costs."""
        return "off" if self.accelerator == "tcg" and software_clock_is_known() else "on"

    def _processor(self) -> tuple[str, ...]:
        if self.accelerator == "kvm":
            accelerator, cpu = "kvm", CPU_HARDWARE
        else:
            accelerator, cpu = f"tcg,tb-size={TRANSLATION_CACHE_MB}", CPU_SOFTWARE
        return ("-accel", accelerator, "-cpu", cpu, "-smp", str(self.hardware.vcpu))

    def _memory(self) -> tuple[str, ...]:
        share = "on" if self.memory.share else "off"
        backend = (
            f"memory-backend-file,id=ram,size={self.hardware.ram_mb}M"
            f",mem-path=/proc/self/fd/{self.memory.fd},share={share}"
        )
        return ("-m", f"{self.hardware.ram_mb}M", "-object", backend)

    def _kernel(self) -> tuple[str, ...]:
        if self.kernel is None:
            # -S: only when its memory is whole may it run, whatever its state says it did.
            return ("-incoming", "defer", "-S")
        return (
            *("-kernel", f"/proc/self/fd/{self.kernel.kernel_fd}"),
            *("-initrd", f"/proc/self/fd/{self.kernel.initrd_fd}"),
            *("-append", self._kernel_command_line(self.kernel)),
        )

    def _kernel_command_line(self, kernel: Kernel) -> str:
        software = "" if self.accelerator == "kvm" else KERNEL_SOFTWARE
        return f"{KERNEL_COMMAND_LINE}{software} {kernel.clock}".rstrip()

    def _monitor(self) -> tuple[str, ...]:
        return (
            *("-chardev", f"socket,id=monitor,fd={self.monitor_fd},server=on,wait=off"),
            *("-mon", "chardev=monitor,mode=control"),
        )

    def _network(self) -> tuple[str, ...]:
        return (
            *("-netdev", f"tap,id=net,fd={self.tap_fd},vhost=off"),
            # Not announced after loading: the tap knows where the guest is, and an answer to
            # whoever waits for it is worth more.
            *("-device", f"virtio-net-device,netdev=net,mac={GUEST_MAC},guest_announce=off"),
        )


def shape(accelerator: str, hardware: Hardware) -> str:
    """The whole command line of a cold boot but for names and descriptors.

    Snapshots are bound to every part of it: machine, CPU, devices and their order.
    """
    disks = tuple(Disk(serial, 0, serial != "scratch") for serial in ("root", "runtime", "scratch"))
    command = Command("", accelerator, hardware, Memory(0, share=True), 0, 0, disks, Kernel(0, 0))
    return " ".join(command.argv("qemu"))


def _disk(number: int, disk: Disk) -> tuple[str, ...]:
    read_only = "on" if disk.read_only else "off"
    node = (
        f"driver=raw,node-name={disk.serial},read-only={read_only},discard=unmap"
        f",file.driver=file,file.filename=/dev/fdset/{number},file.read-only={read_only}"
        # The image store and the run directory see to it that nobody else writes; a lock would
        # need rights on the file that the VMM does not have.
        ",file.locking=off,file.discard=unmap"
    )
    return (
        *("-add-fd", f"fd={disk.fd},set={number}"),
        *("-blockdev", node),
        # report: the guest gets an I/O error when the host's disk is full. By default QEMU would
        # stop the VM and say so to nobody but its monitor.
        *("-device", f"virtio-blk-device,drive={disk.serial},serial={disk.serial},{ON_ERROR}"),
    )


def _sandbox() -> tuple[str, str]:
    return ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
