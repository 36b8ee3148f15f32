"""A QEMU guest with Debian's cloud kernel and nothing of Homeport's.

The kernel comes as Debian's package, unpacked but not installed. The initramfs is made
here: busybox, bash and iproute2's `ip` of this machine, and the kernel's modules. A shell
of the guest is at its second serial port.
"""

import gzip
import lzma
import os
import re
import shutil
import socket
import struct
import time
from pathlib import Path

from lab import Lab, LabError, run, wait_until

PACKAGE = "linux-image-cloud-amd64"
NO_OFFLOADS = "csum=off,gso=off,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off"
# With what they depend on.
MODULES = ("virtio_pci", "virtio_net", "ipip", "ip_gre", "fou")
# A working KVM says its first word within a second.
FIRST_WORD_SECONDS = {"kvm": 8, "tcg": 60}
BOOT_SECONDS = 180

INIT = """#!/bin/busybox sh
export PATH=/bin:/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mkdir -p /tmp
/bin/busybox --install -s /sbin
for module in $(cat /modules.order); do insmod /modules/$module || echo "no $module"; done
ip link set lo up
for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do [ -e $f ] && echo 1 >$f; done
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter
stty -F /dev/ttyS1 raw -echo
# Not bash itself: to a terminal, it would talk as to a person.
exec bash -c 'while IFS= read -r line; do eval "$line"; done' </dev/ttyS1 >/dev/ttyS1 2>&1
"""


class Kernel:
    """Debian's cloud kernel, unpacked into a directory that is kept for the next time."""

    def __init__(self, directory: Path):
        self.directory = directory

    def fetch(self) -> str:
        """Downloads and unpacks it if it is not there; its version."""
        if not (found := self._found()):
            self.directory.mkdir(parents=True, exist_ok=True)
            package = re.search(r"Depends: (linux-image-\S+)", run("apt-cache", "depends", PACKAGE))
            if not package:
                raise LabError(f"apt does not know {PACKAGE}: run `apt-get update`")
            run("sh", "-c", 'cd "$1" && apt-get download -q -o APT::Sandbox::User=root "$2"', "fetch",
                self.directory, package[1])
            for archive in self.directory.glob("*.deb"):
                run("dpkg-deb", "-x", archive, self.directory)
                archive.unlink()
            found = self._found()
        if not found:
            raise LabError(f"{PACKAGE} holds no kernel")
        return found

    def _found(self) -> str | None:
        images = sorted(self.directory.glob("boot/vmlinuz-*"))
        return images[-1].name.removeprefix("vmlinuz-") if images else None

    @property
    def image(self) -> Path:
        """The kernel itself."""
        return self.directory / "boot" / f"vmlinuz-{self.fetch()}"

    def modules(self, names: tuple[str, ...]) -> dict[str, bytes]:
        """These modules after those that they need, as insmod takes them."""
        base = self.directory / "lib" / "modules" / self.fetch()
        files = {path.name.partition(".")[0].replace("-", "_"): path for path in base.rglob("*.ko*")}
        ordered: dict[str, bytes] = {}

        def take(name: str) -> None:
            name = name.replace("-", "_")
            if name in ordered:
                return
            if name not in files:
                raise LabError(f"{PACKAGE} has no module {name}")
            data = files[name].read_bytes()
            data = lzma.decompress(data) if files[name].suffix == ".xz" else data
            for needed in depends(data):
                take(needed)
            ordered[name] = data

        for name in names:
            take(name)
        return ordered


def depends(module: bytes) -> list[str]:
    """The modules that a module names in its .modinfo."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name for name in found[1].decode("ascii").split(",") if name] if found else []


def cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive in the kernel's `newc` format: path to (mode, content), folders included."""
    out = bytearray()
    for number, (path, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], start=1):
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % value for value in fields) + name
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs(kernel: Kernel) -> bytes:
    """The guest's whole file system."""
    files: dict[str, tuple[int, bytes]] = {}

    def put(path: str, content: bytes, mode: int = 0o100755) -> None:
        for parent in reversed(Path(path).parents):
            if str(parent) != ".":
                files.setdefault(str(parent), (0o040755, b""))
        files[path] = (mode, content)

    def program(name: str, where: str) -> None:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if not found:
            raise LabError(f"{name} is missing: run scripts/setup interop")
        put(where, Path(found).resolve().read_bytes())
        for library in re.findall(r"(/\S+) \(0x", run("ldd", found, check=False)):
            put(library.lstrip("/"), Path(library).resolve().read_bytes())

    program("busybox", "bin/busybox")
    program("bash", "bin/bash")
    program("ip", "bin/ip")
    modules = kernel.modules(MODULES)
    for name, data in modules.items():
        put(f"modules/{name}", data, 0o100644)
    put("modules.order", "\n".join(modules).encode(), 0o100644)
    put("init", INIT.encode())
    for folder in ("proc", "sys", "dev", "sbin", "www"):
        files[folder] = (0o040755, b"")
    return gzip.compress(cpio(files), compresslevel=1)


class Guest:
    """The running guest, whose network card is the TAP interface `tap` in `node`."""

    def __init__(self, lab: Lab, node: str, tap: str, kernel: Kernel, offloads: bool):
        self.lab = lab
        # Whether it may leave checksums and segments to its network card.
        self._card = "virtio-net-pci,netdev=net" + ("" if offloads else "," + NO_OFFLOADS)
        self._node, self._tap, self._kernel = node, tap, kernel
        self._disk = lab.run / "initramfs"
        self._disk.write_bytes(initramfs(kernel))
        self._console = lab.directory / "guest.log"
        self._serial = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._pending = b""
        self.accelerator = "none"

    def boot(self) -> str:
        """Starts it and waits for its shell; the guest's own word for its kernel.

        By KVM where it works: there are machines that have /dev/kvm and cannot run an
        ordinary kernel by it. There QEMU ends, or the guest never says a word.
        """
        ways = ["kvm", "tcg"] if os.access("/dev/kvm", os.R_OK | os.W_OK) else ["tcg"]
        for self.accelerator in ways:
            process = self._start()
            if wait_until(lambda: self._spoke() or self.lab.dead("qemu"), FIRST_WORD_SECONDS[self.accelerator]) \
                    and self._spoke():
                return self._await_shell()
            process.kill()
            process.wait(timeout=10)
        said = (self.lab.directory / "qemu.log").read_text(errors="replace").strip()
        raise LabError(f"the guest does not start: {said or 'it is silent'}")

    def _start(self):
        path = self.lab.run / "guest.sock"
        path.unlink(missing_ok=True)
        self._console.unlink(missing_ok=True)
        process = self.lab.start(
            self._node, "qemu", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot",
            "-display", "none", "-machine", "q35", "-accel", self.accelerator, "-cpu", "max", "-m", "256",
            "-kernel", self._kernel.image, "-initrd", self._disk, "-append", "console=ttyS0 panic=-1",
            "-serial", f"file:{self._console}", "-serial", f"unix:{path},server=on,wait=off",
            "-netdev", f"tap,id=net,ifname={self._tap},script=no,downscript=no",
            "-device", self._card)
        if wait_until(lambda: path.exists() or self.lab.dead("qemu"), 10) and not self.lab.dead("qemu"):
            self._serial.close()
            self._serial = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._serial.connect(str(path))
        return process

    def _spoke(self) -> bool:
        """Whether its kernel has written to the console. (The loader's own line does not count.)"""
        return self._console.exists() and b"Linux version" in self._console.read_bytes()

    def _await_shell(self) -> str:
        end = time.monotonic() + BOOT_SECONDS
        # What is sent before the shell reads may be lost: said again until it answers.
        while time.monotonic() < end and not self.lab.dead("qemu"):
            try:
                self.run("true", seconds=2)
                return self.run("uname -r").strip()
            except LabError:
                continue
        raise LabError(f"the guest did not boot; its console is in {self._console}")

    def run(self, command: str, seconds: float = 60, check: bool = True) -> str:
        """Runs a command of one line in the guest's bash; what it printed."""
        mark = f"@{time.monotonic_ns()}@"
        self._serial.sendall(f"{{ {command}; }} </dev/null 2>&1; echo \"{mark}$?@\"\n".encode())
        pattern = re.compile(rb"(?s)(.*?)" + mark.encode() + rb"(\d+)@\n")
        end = time.monotonic() + seconds
        while not (found := pattern.search(self._pending)):
            self._serial.settimeout(max(end - time.monotonic(), 0.001))
            try:
                block = self._serial.recv(65536)
            except TimeoutError as error:
                raise LabError(f"the guest's `{command}` did not end within {seconds:.0f} s") from error
            if not block:
                raise LabError("the guest is gone")
            self._pending += block
        self._pending = self._pending[found.end():]
        output = found[1].decode(errors="replace")
        # What an earlier command, given up on, still printed.
        output = re.sub(r"(?s)^.*@\d+@\d+@\n", "", output)
        if check and found[2] != b"0":
            raise LabError(f"the guest's `{command}` failed: {output.strip()}")
        return output
