"""Data for measurements, with defects planted at known rates and the truth about them kept apart.

`python -m tests.benchmarks.corpora FOLDER [--kind packages|docstrings|synthetic] [--rows N] [--clean]` writes rows
as JSONL into FOLDER/rows and the truth into FOLDER/truth.parquet: row (number in the order of files and lines),
defect, of (for a near-duplicate the row that it resembles).

packages: Debian's descriptions, asked for by name and section; apt's lists hold them after
`apt-get update -o Acquire::Languages=en`. docstrings: those of the standard library. synthetic: any number of rows
whose words have the frequencies of these docstrings, a subject each, so that an answer fits its prompt.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.defects import RATES, Planted, planted

Row = dict[str, str]
"""prompt, completion and group."""

SHARD = 25_000
"""Rows of a file: a file is read by one task."""
GROUP = 12
"""Synthetic rows of a group, about."""
_COMMON = 200
"""Words that any synthetic text may hold, whatever it is about."""


def main() -> None:
    """Write one corpus and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="without one the rows are only counted")
    parser.add_argument("--kind", choices=("packages", "docstrings", "synthetic"), default="synthetic")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--lists", type=Path, default=Path("/var/lib/apt/lists"))
    parser.add_argument("--clean", action="store_true", help="plant nothing")
    parser.add_argument("--seed", type=int, default=17)
    options = parser.parse_args()
    rates = {} if options.clean else RATES
    with tempfile.TemporaryDirectory(prefix="sluice-corpora-") as scratch:
        folder = options.folder or Path(scratch)
        print(json.dumps(build(folder, options.kind, options.rows, options.lists, rates, options.seed)))


def build(
    folder: Path,
    kind: str,
    rows: int | None = None,
    lists: Path = Path("/var/lib/apt/lists"),
    rates: dict[str, float] = RATES,
    seed: int = 17,
) -> dict[str, Any]:
    """Write the corpus; how many rows and defects it has."""
    source = {
        "packages": lambda: packages(lists),
        "docstrings": docstrings,
        "synthetic": lambda: synthetic(rows or 10_000, seed),
    }[kind]()
    shutil.rmtree(folder / "rows", ignore_errors=True)
    (folder / "rows").mkdir(parents=True)
    truth: list[Planted] = []
    count = 0
    waiting = iter(islice(source, rows))
    for number in range(10**6):
        part = list(islice(waiting, SHARD))
        if not part:
            break
        part, found = planted(part, rates, random.Random(f"{seed} {number}"))
        truth += [
            Planted(count + each.row, each.defect, None if each.of is None else count + each.of) for each in found
        ]
        count += len(part)
        with (folder / "rows" / f"{number:04}.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
    pq.write_table(
        pa.table(
            {
                "row": pa.array([each.row for each in truth], pa.int64()),
                "defect": pa.array([each.defect for each in truth], pa.string()),
                "of": pa.array([each.of for each in truth], pa.int64()),
            }
        ),
        folder / "truth.parquet",
    )
    size = sum(path.stat().st_size for path in (folder / "rows").iterdir())
    return {"kind": kind, "rows": count, "bytes": size, "planted": dict(Counter(each.defect for each in truth))}


def packages(lists: Path) -> Iterator[Row]:
    """A row for each package of Debian with a description; the group is the source package."""
    known: dict[str, tuple[str, str]] = {}
    for path in sorted(lists.glob("*_Packages*")):
        for stanza in _stanzas(path):
            source = stanza.get("Source", stanza["Package"]).partition(" ")[0]
            known[stanza["Package"]] = (source, stanza.get("Section", "misc"))
    seen: set[str] = set()
    for path in sorted(lists.glob("*_Translation-en*"), key=lambda path: -path.stat().st_size):
        for stanza in _stanzas(path):
            name = stanza["Package"]
            summary, _, body = stanza.get("Description-en", "").partition("\n")
            if name in seen or name not in known or not body:
                continue
            seen.add(name)
            source, section = known[name]
            text = textwrap.dedent(body).replace("\n.\n", "\n\n").strip()
            yield {
                "prompt": f"What is the package {name} (section {section}) for?",
                "completion": f"{summary}\n\n{text}",
                "group": source,
            }
    if not seen:
        raise SystemExit(f"{lists} holds no descriptions: `apt-get update -o Acquire::Languages=en` brings them.")


def _stanzas(path: Path) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file, a field's continuation lines with it, whatever it is packed by."""
    command = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        fields: dict[str, str] = {}
        name = ""
        for line in process.stdout:
            if line == "\n":
                if fields:
                    yield fields
                fields = {}
            elif line[0] in " \t":
                fields[name] += "\n" + line.rstrip("\n")
            else:
                name, _, value = line.rstrip("\n").partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


def docstrings() -> Iterator[Row]:
    """The standard library's docstrings: the body asks for the summary; the group is the module."""
    from pipelines.data.reading.packages import find_package

    for _, row in find_package("package://python#docstrings").rows():
        if row.value:
            yield {name: row.value[name] for name in ("prompt", "completion", "group")}


def synthetic(rows: int, seed: int) -> Iterator[Row]:
    """Rows of some 60 words; those of a group share a subject, and a prompt and its answer some rarer words."""
    words, frequency = _vocabulary()
    cumulative = np.cumsum(frequency / frequency.sum())
    draw = np.random.default_rng(seed)
    groups = 0
    for start in range(0, rows, 4096):
        count = min(4096, rows - start)
        group = np.cumsum(draw.random(count) < 1 / GROUP)
        # What a text is about are words that are neither in every text nor in hardly any.
        about = draw.integers(_COMMON, len(words), (int(group[-1]) + 1, 60))
        picked = np.take_along_axis(about[group], draw.integers(0, 60, (count, 12)), 1)
        own = np.concatenate((picked, draw.integers(_COMMON, len(words), (count, 4))), 1)
        texts = []
        for lengths, share in ((draw.integers(8, 24, count), 0.4), (draw.geometric(1 / 40, count) + 8, 0.3)):
            row = np.repeat(np.arange(count), lengths)
            general = np.searchsorted(cumulative, draw.random(len(row)))
            mine = own[row, draw.integers(0, own.shape[1], len(row))]
            chosen = words[np.minimum(np.where(draw.random(len(row)) < share, mine, general), len(words) - 1)]
            texts.append([" ".join(part) for part in np.split(chosen, np.cumsum(lengths)[:-1])])
        for number, prompt, answer in zip((group + groups).tolist(), *texts, strict=True):
            yield {
                "prompt": f"{prompt.capitalize()}?",
                "completion": f"{answer.capitalize()}.",
                "group": f"group {number}",
            }
        groups += int(group[-1]) + 1


def _vocabulary() -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """(words, frequencies) of the docstrings, and made-up words in the tail, as Zipf's law has it."""
    counts = Counter(word for row in docstrings() for word in re.findall(r"[a-z]{2,}", _text(row).lower()))
    known = [word for word, _ in counts.most_common(8000)]
    draw = random.Random(3)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ar", "en", "ol")]
    made = {"".join(draw.choices(syllables, k=draw.randint(2, 4))) for _ in range(40_000)} - set(known)
    words = np.array([*known, *sorted(made)], object)
    return words, 1 / np.arange(1, len(words) + 1)


def _text(row: Row) -> str:
    return f"{row['prompt']} {row['completion']}"


def rows_of(folder: Path) -> Iterable[Row]:
    """The rows of a corpus in their order."""
    for path in sorted((folder / "rows").iterdir()):
        with path.open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)


if __name__ == "__main__":
    main()
