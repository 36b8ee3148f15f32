"""What the demo shows while it runs: a live picture on a terminal, lines elsewhere."""

import os
import shutil
import sys
import time

BARS = " ▁▂▃▄▅▆▇█"
BOLD, DIM, GREEN, RED, YELLOW, CYAN, RESET = (
    "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[33m", "\033[36m", "\033[0m")


class Screen:
    """Redraws a block of lines in place when it can; else it prints what is new."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = 0
        self._started = time.monotonic()

    def color(self, text: str, *codes: str) -> str:
        """`text` in colour, on a terminal."""
        return f"{''.join(codes)}{text}{RESET}" if self.live and not os.environ.get("NO_COLOR") else text

    def step(self, text: str) -> None:
        """A line that stays: something began or is done."""
        self.clear()
        stamp = f"{time.monotonic() - self._started:6.1f} s"
        print(f"{self.color(stamp, DIM)}  {text}", flush=True)

    def draw(self, lines: list[str]) -> None:
        """Replaces the block drawn before. Nothing without a terminal."""
        if not self.live:
            return
        self.clear()
        width = shutil.get_terminal_size().columns
        sys.stdout.write("".join(f"{clip(line, width)}\n" for line in lines))
        sys.stdout.flush()
        self._drawn = len(lines)

    def clear(self) -> None:
        """Takes the block away."""
        if self._drawn:
            sys.stdout.write(f"\033[{self._drawn}F\033[J")
            sys.stdout.flush()
            self._drawn = 0


def clip(line: str, width: int) -> str:
    """`line` cut to `width` columns; escape sequences take none."""
    shown, index, out = 0, 0, ""
    while index < len(line):
        if line[index] == "\033":
            end = line.index("m", index) + 1
            out += line[index:end]
            index = end
            continue
        if shown == width:
            index += 1
            continue
        out += line[index]
        shown += 1
        index += 1
    return out


def bar(fraction: float, width: int = 30) -> str:
    """A progress bar."""
    full = round(min(max(fraction, 0), 1) * width)
    return "█" * full + "░" * (width - full)


def sparkline(values: list[float]) -> str:
    """One character per value, scaled to the largest."""
    top = max(values, default=0) or 1
    return "".join(BARS[min(8, round(value / top * 8))] for value in values)
