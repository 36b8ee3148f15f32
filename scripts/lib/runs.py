"""What the programs share that lay a lab, look at something in it and take it away."""

import argparse
import os
import platform
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

from agents import PORTS
from lab import Lab, LabError, build_directory
from screen import RED, Screen
from topologies import Topology

MOST_PROBLEMS = 8


class Run:
    """One run: its lab, its screen, its directory, and what went wrong."""

    def __init__(self, options: argparse.Namespace, topology: Topology, directory: Path):
        self.options = options
        self.directory = directory
        self.screen = Screen()
        self.binaries = Path(options.binaries).resolve() if options.binaries else build_directory() / "release"
        self.lab = Lab(options.name, directory, self.binaries, topology)
        self.problems: list[str] = []

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else uses the lab's name meanwhile, and nothing is left of it afterwards."""
        self.lab.lock()
        if kept := self.lab.kept():
            raise LabError(f"the lab `{self.lab.name}` was left up on purpose at {kept['since']}: "
                           "take it down first with `scripts/lab down`")
        self.directory.mkdir(parents=True, exist_ok=True)
        for old in self.directory.glob("*"):
            if old.is_file():
                old.unlink()
        handlers = {}
        try:
            yield
        finally:
            # From here on ^C is not heard: it would leave the very things behind that it
            # shall remove. Every wait in here is bounded.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                handlers[number] = signal.signal(number, signal.SIG_IGN)
            self.screen.clear()
            self.clean()
            self.lab.unlock()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def clean(self) -> None:
        """Ends and removes all that the run made outside of target/."""
        self.lab.down()

    def verdict(self) -> int:
        """Tells what went wrong; the exit code."""
        for problem in self.problems[:MOST_PROBLEMS]:
            print(self.screen.color(f"\nFAILED: {problem}", RED), file=sys.stderr)
        if len(self.problems) > MOST_PROBLEMS:
            print(f"\nand {len(self.problems) - MOST_PROBLEMS} more", file=sys.stderr)
        if self.problems:
            print(self.lab.tails(), file=sys.stderr)
        return 1 if self.problems else 0


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """What all of them take."""
    parser.add_argument("--ports", choices=PORTS, default="af_packet",
                        help="what the agents read their interfaces with (default: %(default)s)")
    parser.add_argument("--name", default=os.environ.get("HOMEPORT_LAB", "hp"),
                        help="prefix of the namespaces (default: hp, or $HOMEPORT_LAB)")
    parser.add_argument("--binaries", help="where the programs are, instead of building them")


def guarded(main: Callable[[], int]) -> int:
    """Runs `main` so that ^C unwinds, and what went wrong is told in a sentence."""
    def on_signal(number, _frame):
        # Also where ^C came in ignored.
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        return main()
    except KeyboardInterrupt as stop:
        print(f"\nstopped by {stop}; everything is cleaned up", file=sys.stderr)
        return 130
    except (LabError, OSError, subprocess.SubprocessError) as problem:
        print(f"\nFAILED: {problem}", file=sys.stderr)
        return 1


def machine() -> dict[str, object]:
    """What it ran on."""
    model, memory = "unknown", 0
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            memory = int(line.split()[1]) // 1024
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return {"cpu": model, "cpus": os.cpu_count(), "memory_mib": memory, "kernel": platform.release(),
            "system": system}
