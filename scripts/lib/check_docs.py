"""Whether docs/configuration.md and the program know the same keys.

`check_docs.py HOMEPORT`: reads the schema that `homeport config schema` prints and
compares it with the tables in the document, section by section.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
ASSOCIATION = "….security_association"


def from_schema(schema: dict) -> dict[str, set[str]]:
    """The keys of each section, as the program has them."""
    sections: dict[str, set[str]] = {}

    def resolve(node: dict) -> dict:
        while "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        for choice in node.get("anyOf", []):
            if choice.get("type") != "null":
                return resolve(choice)
        return resolve(node["items"]) if "items" in node else node

    def walk(node: dict, name: str) -> None:
        for key, child in node.get("properties", {}).items():
            inner = resolve(child)
            if "properties" in inner:
                walk(inner, ASSOCIATION if key == "security_association" else f"{name}.{key}".lstrip("."))
            elif name:
                sections.setdefault(name, set()).add(key)

    walk(resolve(schema), "")
    return sections


def from_document(text: str) -> dict[str, set[str]]:
    """The keys of each section, as the document has them."""
    sections: dict[str, set[str]] = {}
    name = ""
    for line in text.partition("## homeport-mn")[0].splitlines():
        if heading := re.match(r"(?:### )?`\[\[?([^\]]+)\]\]?`", line):
            name = heading[1]
        elif name and line.startswith("| `"):
            sections.setdefault(name, set()).update(re.findall(r"`([a-z_]+)`", line.split("|")[1]))
    return sections


def main() -> int:
    """Prints every difference."""
    printed = subprocess.run([sys.argv[1], "config", "schema"], capture_output=True, text=True, check=True).stdout
    known, told = from_schema(json.loads(printed)), from_document(DOCUMENT.read_text(encoding="utf-8"))
    wrong = [f"[{name}] {key}: not in {DOCUMENT.name}" for name, keys in known.items()
             for key in sorted(keys - told.get(name, set()))]
    wrong += [f"[{name}] {key}: in {DOCUMENT.name}, and the program does not know it" for name, keys in told.items()
              for key in sorted(keys - known.get(name, set()))]
    print("\n".join(wrong) or f"{sum(map(len, known.values()))} keys in {len(known)} sections agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
