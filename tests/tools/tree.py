"""Write the README's tree: every source file with the first sentence of its own docstring.

`make tree` after adding, removing or renaming a file; a test holds the README against the files.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cluster", "pipelines", "serve", "ui")
BEGIN, END = "<!-- tree: `make tree` writes it -->\n```\n", "```\n<!-- end of tree -->"
WIDTH = 34
LONGEST = 95
"""Characters of a phrase."""


def listed_files():
    """Paths of all that the tree names, relative to the root."""
    found = [ROOT / "cluster.yaml"]
    for package in PACKAGES:
        found += [
            path
            for path in (ROOT / package).rglob("*")
            if path.is_file()
            and path.suffix in (".py", ".yaml", ".css")
            and (path.name != "__init__.py" or path.parent.parent == ROOT)
            and "__pycache__" not in path.parts
        ]
    return [path.relative_to(ROOT) for path in found if path.exists()]


def phrase(path):
    """What a file says of itself, in a phrase."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    else:
        comment = re.match(r"(?:# ?.*\n)+|/\* .*", text)
        text = re.sub(r"^[#/* ]+", "", comment[0], flags=re.MULTILINE) if comment else ""
    # A sentence ends with a stop and a space; a line may hold several, and go on in the next.
    first = " ".join(re.split(r"(?<=[a-z)`])[.;](?:\s|$)|\n\n", text, maxsplit=1)[0].split()).rstrip(".")
    # Of a long one, what stands before its last colon or comma that fits.
    ends = [found.start() for found in re.finditer(r"[:,] ", first) if 20 < found.start() <= LONGEST]
    return first if len(first) <= LONGEST or not ends else first[: ends[-1]]


def tree():
    """The tree as text: folders before their files."""
    lines, shown = [], set()
    for path in sorted(listed_files(), key=lambda path: [(part.count(".") == 0, part) for part in path.parts]):
        for depth in range(len(path.parts) - 1):
            folder = path.parts[: depth + 1]
            if folder not in shown:
                shown.add(folder)
                inside = Path(*folder) / "__init__.py"
                lines.append(line(depth, folder[-1] + "/", phrase(inside) if (ROOT / inside).exists() else ""))
        if path.name != "__init__.py":
            lines.append(line(len(path.parts) - 1, path.name, phrase(path)))
    return "\n".join(lines) + "\n"


def line(depth, name, text):
    """One line of it."""
    return f"{'  ' * depth + name:<{WIDTH}}{text}".rstrip()


def main():
    """Write it into the README."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    readme.write_text(before + BEGIN + tree() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
