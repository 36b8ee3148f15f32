"""The sentences of an RFC that require something, section by section.

`rfc_text.py DIRECTORY NUMBER` prints those of one RFC, to write a list from;
`scripts/conformance --texts DIRECTORY` compares all of them with the lists in
tests/conformance/requirements. DIRECTORY holds `rfc5944.txt` and so on, gzipped or not, as
Debian's non-free doc-rfc packages carry them. The texts are not in this repository.
"""

import gzip
import re
import sys
from dataclasses import dataclass
from pathlib import Path

KEYWORDS = re.compile(r"\b(MUST|SHALL|SHOULD|REQUIRED|RECOMMENDED)\b(?:\s+(NOT)\b)?")
HEADING = re.compile(r"^((?:[0-9]+|Appendix [A-Z]|[A-Z](?=\.[0-9]))(?:\.[0-9]+)*)\.?(?:  ?| - |: )(?=[A-Z\"'`])(?!.*\.{3,})")
FOOTER = re.compile(r"\[Page [0-9]+\]\s*$")
RUNNING_HEAD = re.compile(r"^RFC [0-9]+ .*[0-9]{4}\s*$")
# A full stop that ends no sentence.
ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Sec|al)|\b[A-Z])\.$")
# The paragraph that says what the keywords mean names many of them and requires nothing.
DEFINITION = 4


@dataclass(frozen=True)
class Sentence:
    """A sentence with at least one keyword, and the strongest of its keywords."""

    section: str
    text: str

    @property
    def level(self) -> str:
        """The first keyword of the greatest force: an absolute one before a SHOULD."""
        found = [" ".join(filter(None, match.groups())) for match in KEYWORDS.finditer(self.text)]
        strong = [word for word in found if word.split()[0] in ("MUST", "SHALL", "REQUIRED")]
        return (strong or found)[0]


def paragraphs(text: str) -> list[tuple[str, str]]:
    """The paragraphs with their sections, in order; page breaks are taken out."""
    found: list[tuple[str, list[str]]] = []
    section, lines, broken = "0", [], False

    def end() -> None:
        nonlocal lines
        if lines:
            found.append((section, lines))
        lines = []

    for line in text.replace("\f", "\n").splitlines():
        if FOOTER.search(line) or RUNNING_HEAD.match(line):
            # A paragraph goes on after the break if its last line ended no sentence.
            if not lines and found and found[-1][0] == section and FOOTER.search(line):
                lines = found.pop()[1]
            broken = True
        elif not line.strip():
            if not broken:
                end()
        elif heading := HEADING.match(line):
            end()
            section, broken = heading[1].removeprefix("Appendix "), False
        else:
            if broken and lines and (lines[-1].rstrip()[-1] in ".:" or not line.lstrip()[0].islower()
                                     and line.lstrip()[0] in "-*o"):
                end()
            broken = False
            lines.append(line)
    end()
    return [(name, " ".join(" ".join(lines).split())) for name, lines in found]


def sentences(paragraph: str) -> list[str]:
    """A paragraph in its sentences."""
    found, begin = [], 0
    for stop in re.finditer(r"[.!?][)\"']?(?= +[A-Z\"(\[0-9-])", paragraph):
        if ABBREVIATION.search(paragraph[begin:stop.end()].rstrip(")\"'")):
            continue
        found.append(paragraph[begin:stop.end()].strip())
        begin = stop.end()
    return [*found, paragraph[begin:].strip()]


def required(text: str) -> list[Sentence]:
    """Every sentence of an RFC that has a keyword, in order."""
    found = []
    for section, paragraph in paragraphs(text):
        for sentence in sentences(paragraph):
            words = {" ".join(filter(None, match.groups())) for match in KEYWORDS.finditer(sentence)}
            if words and len(words) < DEFINITION:
                found.append(Sentence(section, sentence))
    return found


def letter(index: int) -> str:
    """The name of a section's sentence: a to z, then aa, ab and so on."""
    return (chr(ord("a") + index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def ids(number: int, found: list[Sentence]) -> list[str]:
    """The ids that the list of an RFC must have, in the order of its sentences."""
    seen: dict[str, int] = {}
    names = []
    for sentence in found:
        index = seen.get(sentence.section, 0)
        seen[sentence.section] = index + 1
        names.append(f"{number}-{sentence.section}-{letter(index)}")
    return names


def read(directory: Path, number: int) -> list[Sentence]:
    """The sentences of the RFC in this directory."""
    plain = directory / f"rfc{number}.txt"
    packed = directory / f"rfc{number}.txt.gz"
    raw = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    return required(raw.decode("utf-8", "replace"))


def differences(directory: Path, lists: dict[int, list[tuple[str, str]]]) -> list[str]:
    """What the lists lack, have beside, or have at another level than the texts."""
    wrong = []
    for number, listed in lists.items():
        try:
            found = read(directory, number)
        except OSError as error:
            wrong.append(f"RFC {number}: {error}")
            continue
        levels = dict(listed)
        expected = dict(zip(ids(number, found), found, strict=True))
        wrong += [f"{name}: not listed: {sentence.text}" for name, sentence in expected.items() if name not in levels]
        wrong += [f"{name}: listed, and the text has no such sentence" for name in levels if name not in expected]
        wrong += [f"{name}: {levels[name]} in the list, {sentence.level} in the text"
                  for name, sentence in expected.items() if name in levels and levels[name] != sentence.level]
    return wrong


def main() -> int:
    """Prints the sentences of one RFC with the ids that their entries have."""
    number = int(sys.argv[2])
    found = read(Path(sys.argv[1]), number)
    for name, sentence in zip(ids(number, found), found, strict=True):
        print(f"{name} {sentence.level}: {sentence.text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
