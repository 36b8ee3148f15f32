"""What the RFCs require and what attackers try, each with the tests that show it.

The lists are tests/conformance/requirements/*.toml and tests/conformance/attacks.toml. A test
says what it shows in a comment directly above it:

    // Shows 5944-3.8.2.1-h, 5944-3.8.2.1-k, attack-2.
    #[test]
    fn …

`conformance.py` writes docs/conformance.md and docs/attacks.md from both. With `--check` it
writes nothing and fails when a document is stale. In both cases it fails when a tag names
nothing that is listed, and when something listed has neither a test nor a reason.
"""

import argparse
import re
import sys
import tomllib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path("tests/conformance")
LEVELS = ("MUST", "MUST NOT", "SHALL", "SHALL NOT", "REQUIRED", "SHOULD", "SHOULD NOT", "RECOMMENDED")
TAG = re.compile(r"^\s*(?://|#) Shows (?=[0-9]|attack-)(.*)$")
MORE = re.compile(r"^\s*(?://|#) (?=[0-9]|attack-)(.*)$")
TEST = re.compile(r"^\s*(?:pub )?(?:fn|def) (\w+)")
IS_TEST = re.compile(r"^\s*#\[test\]|^\s*def test_")
BETWEEN = re.compile(r"^\s*(?:#\[|#!?\[|//|\)\]|$)")
WHERE = (("dataplane", "*.rs"), ("control", "*.rs"), ("tests", "*.rs"), ("bench", "*.rs"), ("scripts/lib", "test_*.py"))


@dataclass(frozen=True)
class Test:
    """A test function and its file."""

    path: str
    name: str

    @property
    def link(self) -> str:
        parts = Path(self.path).with_suffix("").parts
        crate = "wire" if "wire" in parts else "proto" if "proto" in parts else parts[0]
        inner = [part.removesuffix("_tests") for part in parts
                 if part not in ("control", "proto", "dataplane", "wire", "bench", "scripts", "lib", "src", "tests", "mod")]
        return f"[`{'::'.join([crate, *inner, self.name])}`](../{self.path})"


@dataclass
class Entry:
    """Something that tests can show: a requirement or an attack."""

    id: str
    text: str
    level: str = ""
    role: str = ""
    same_as: tuple[str, ...] = ()
    not_applicable: str = ""
    not_done: str = ""
    # An attack whose tests do not show all of it yet.
    partly: str = ""
    tests: list[Test] = field(default_factory=list)

    @property
    def is_must(self) -> bool:
        return self.level.split()[0] in ("MUST", "SHALL", "REQUIRED")

    @property
    def section(self) -> str:
        """The section, and the letter of the sentence in it."""
        return self.id.partition("-")[2]


@dataclass
class Rfc:
    """The requirements of one RFC."""

    number: int
    title: str
    entries: list[Entry]


def read_rfc(text: str, name: str) -> Rfc:
    """A list of requirements; raises ValueError with the place of what is wrong."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name}: {error}") from error
    entries = []
    for key, raw in data["requirements"].items():
        where = f"{name}: {key}"
        if not key.startswith(f"{data['rfc']}-"):
            raise ValueError(f"{where}: ids here begin with `{data['rfc']}-`")
        if unknown := raw.keys() - {"level", "role", "text", "same_as", "not_applicable", "not_done"}:
            raise ValueError(f"{where}: unknown key `{min(unknown)}`")
        if missing := {"level", "role", "text"} - raw.keys():
            raise ValueError(f"{where}: `{min(missing)}` is missing")
        if raw["level"] not in LEVELS:
            raise ValueError(f"{where}: no level is called `{raw['level']}`: {', '.join(LEVELS)}")
        if len(raw.keys() & {"same_as", "not_applicable", "not_done"}) > 1:
            raise ValueError(f"{where}: one of same_as, not_applicable and not_done is enough")
        entries.append(Entry(id=key, **{**raw, "same_as": tuple(raw.get("same_as", ()))}))
    return Rfc(data["rfc"], data["title"], entries)


def read_attacks(text: str, name: str) -> list[Entry]:
    """The rows of the threat model."""
    entries = []
    for raw in tomllib.loads(text)["attack"]:
        if unknown := raw.keys() - {"row", "attack", "expected", "partly", "not_done"}:
            raise ValueError(f"{name}: row {raw.get('row')}: unknown key `{min(unknown)}`")
        entries.append(Entry(id=f"attack-{raw['row']}", role=raw["attack"], text=raw["expected"],
                             partly=raw.get("partly", ""), not_done=raw.get("not_done", "")))
    return entries


def tags(lines: list[str], path: str) -> tuple[dict[str, list[Test]], list[str]]:
    """What each tag of a file is above, and what is wrong with the tags."""
    found: dict[str, list[Test]] = defaultdict(list)
    problems = []
    waiting: list[str] = []
    at, is_test, listing = 0, False, False
    for number, line in enumerate(lines, 1):
        if match := TAG.match(line) or (listing and MORE.match(line)):
            at = at or number
            waiting += re.findall(r"[^\s,]+", match[1].rstrip().removesuffix("."))
            listing = not match[1].rstrip().endswith(".")
        elif waiting:
            listing = False
            is_test = is_test or bool(IS_TEST.match(line))
            if test := TEST.match(line):
                if not is_test:
                    problems.append(f"{path}:{at}: `{test[1]}` below this tag is no test")
                for tag in waiting:
                    found[tag].append(Test(path, test[1]))
                waiting, at, is_test = [], 0, False
            elif not BETWEEN.match(line):
                problems.append(f"{path}:{at}: this tag is not directly above a test")
                waiting, at, is_test = [], 0, False
    if waiting:
        problems.append(f"{path}:{at}: this tag is not directly above a test")
    return found, problems


def problems_of(entries: dict[str, Entry], found: dict[str, list[Test]]) -> list[str]:
    """Tags without an entry, and entries without a test or a reason."""
    wrong = [f"{tests[0].path}: `{tests[0].name}` shows `{tag}`, which is not listed"
             for tag, tests in found.items() if tag not in entries]
    for entry in entries.values():
        reason = entry.not_applicable or entry.not_done
        for target in entry.same_as:
            if target not in entries:
                wrong.append(f"{entry.id}: the same as `{target}`, which is not listed")
            elif entries[target].same_as:
                wrong.append(f"{entry.id}: the same as `{target}`, which is the same as another: name that one")
        if entry.tests and (reason or entry.same_as):
            wrong.append(f"{entry.id}: `{entry.tests[0].name}` shows it, so it needs no reason: take that out of the list")
        if entry.partly and not entry.tests:
            wrong.append(f"{entry.id}: partly, and no test shows a part")
        if not (entry.tests or reason or entry.same_as):
            wrong.append(f"{entry.id}: no test shows it and the list gives no reason: {entry.text}")
    return wrong


def state(entry: Entry, entries: dict[str, Entry]) -> str:
    """`done`, `not done` or `not applicable`."""
    if entry.same_as:
        states = {state(entries[target], entries) for target in entry.same_as if target in entries}
        return next((one for one in ("not done", "done") if one in states), "not applicable")
    if entry.not_applicable:
        return "not applicable"
    return "done" if entry.tests else "not done"


def share(done: int, of: int) -> str:
    """`12 of 16, 75 %`; rounded down, so that only all is 100 %."""
    return f"{done} of {of}, {100 * done // of} %" if of else "none"


def shown_by(entry: Entry, entries: dict[str, Entry]) -> str:
    """The last column: tests, or why there is none."""
    if entry.same_as:
        targets = [f"§{entries[target].section}" if target.split("-")[0] == entry.id.split("-")[0] else
                   f"RFC {target.split('-')[0]} §{entries[target].section}" for target in entry.same_as]
        return f"{'not done, ' if state(entry, entries) == 'not done' else ''}see {', '.join(targets)}"
    if entry.not_applicable:
        return f"does not apply: {entry.not_applicable}"
    if entry.not_done:
        return f"**not done**: {entry.not_done}"
    tests = " ".join(test.link for test in entry.tests)
    return f"{tests}; **missing**: {entry.partly}" if entry.partly else tests


def counts(rfc: Rfc, entries: dict[str, Entry]) -> tuple[str, str, int]:
    """How much of the MUSTs and SHOULDs is done, and how many do not apply."""
    states = [(entry.is_must, state(entry, entries)) for entry in rfc.entries]
    done = [[one == "done" for must, one in states if must == wanted and one != "not applicable"]
            for wanted in (True, False)]
    return share(sum(done[0]), len(done[0])), share(sum(done[1]), len(done[1])), \
        sum(one == "not applicable" for _, one in states)


def conformance(rfcs: list[Rfc], entries: dict[str, Entry]) -> str:
    """docs/conformance.md."""
    lines = ["# Conformance", "",
             "Every sentence of these RFCs that has a keyword of RFC 2119, in our words, with the tests that",
             "show it or an honest reason why there is none. A section's sentences are numbered a, b, c; MUST",
             "counts MUST NOT, SHALL and REQUIRED too, SHOULD counts SHOULD NOT and RECOMMENDED.", "",
             "Written by `scripts/conformance` from tests/conformance/requirements and the tests' tags: change",
             "those, not this file. `scripts/conformance --texts DIRECTORY` compares the lists with the RFCs'",
             "texts, so that no sentence is forgotten.", "",
             "| RFC | MUST | SHOULD | Does not apply |", "|---|---|---|---|"]
    for rfc in rfcs:
        must, should, other = counts(rfc, entries)
        anchor = re.sub(r"[^a-z0-9 -]", "", f"rfc {rfc.number}: {rfc.title}".lower()).replace(" ", "-")
        lines.append(f"| [{rfc.number}](#{anchor}) {rfc.title} | {must} | {should} | {other} |")
    for rfc in rfcs:
        must, should, _ = counts(rfc, entries)
        lines += ["", f"## RFC {rfc.number}: {rfc.title}", "", f"MUST: {must}. SHOULD: {should}.", "",
                  "| Section | Level | Who | Requirement | Shown by |", "|---|---|---|---|---|"]
        lines += [f"| {entry.section} | {entry.level} | {entry.role} | {entry.text} | {shown_by(entry, entries)} |"
                  for entry in rfc.entries]
    return "\n".join(lines) + "\n"


def attacks_document(attacks: list[Entry], entries: dict[str, Entry]) -> str:
    """docs/attacks.md."""
    whole = sum(bool(attack.tests) and not attack.partly for attack in attacks)
    partly = sum(bool(attack.partly) for attack in attacks)
    lines = ["# Attacks", "",
             "What is tried against registrations and data, what must come of it, and the tests that try it.",
             f"Of {len(attacks)} rows {whole} are shown whole and {partly} in part.", "",
             "Written by `scripts/conformance` from tests/conformance/attacks.toml and the tests' tags: change",
             "those, not this file.", "",
             "| Row | Attack | What must come of it | Shown by |", "|---|---|---|---|"]
    lines += [f"| {attack.section} | {attack.role} | {attack.text} | {shown_by(attack, entries)} |" for attack in attacks]
    return "\n".join(lines) + "\n"


def gather(root: Path) -> tuple[list[Rfc], list[Entry], dict[str, Entry], list[str]]:
    """The lists with their tests, and all that is wrong."""
    rfcs = [read_rfc(path.read_text(encoding="utf-8"), path.name)
            for path in sorted((root / LISTS / "requirements").glob("rfc*.toml"))]
    # The base first; the others in the order of their numbers.
    rfcs.sort(key=lambda rfc: (rfc.number != 5944, rfc.number))
    attacks = read_attacks((root / LISTS / "attacks.toml").read_text(encoding="utf-8"), "attacks.toml")
    entries: dict[str, Entry] = {}
    problems = []
    for entry in [*(one for rfc in rfcs for one in rfc.entries), *attacks]:
        if entry.id in entries:
            problems.append(f"{entry.id}: listed twice")
        entries[entry.id] = entry
    found: dict[str, list[Test]] = defaultdict(list)
    for folder, pattern in WHERE:
        for path in sorted((root / folder).rglob(pattern)):
            name = path.relative_to(root).as_posix()
            # The tests of this program have tags of their own in their texts.
            if "target" in path.parts or path.name == "test_conformance.py":
                continue
            of_file, wrong = tags(path.read_text(encoding="utf-8").splitlines(), name)
            problems += wrong
            for tag, tests in of_file.items():
                found[tag] += tests
    for tag, tests in found.items():
        if tag in entries:
            entries[tag].tests = tests
    return rfcs, attacks, entries, problems + problems_of(entries, found)


def main() -> int:
    """Writes or checks the documents, and tells what is wrong."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a document is stale")
    parser.add_argument("--texts", type=Path, metavar="DIRECTORY", help="also compare the lists with the RFCs' texts")
    options = parser.parse_args()
    try:
        rfcs, attacks, entries, problems = gather(ROOT)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if options.texts:
        # Only where the texts are: they are not in this repository.
        from rfc_text import differences
        problems += differences(options.texts, {rfc.number: [(entry.id, entry.level) for entry in rfc.entries] for rfc in rfcs})
    if not any("is not listed" in problem for problem in problems):
        for name, text in (("conformance.md", conformance(rfcs, entries)), ("attacks.md", attacks_document(attacks, entries))):
            path = ROOT / "docs" / name
            if not options.check:
                path.write_text(text, encoding="utf-8")
            elif not path.exists() or path.read_text(encoding="utf-8") != text:
                problems.append(f"docs/{name} is stale: run scripts/conformance")
    for problem in problems:
        print(problem, file=sys.stderr)
    requirements = [entry for rfc in rfcs for entry in rfc.entries]
    states = [state(entry, entries) for entry in requirements]
    print(f"requirements: {states.count('done')} shown, {states.count('not done')} not done, "
          f"{states.count('not applicable')} do not apply; attacks: {sum(bool(one.tests) for one in attacks)} of {len(attacks)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
