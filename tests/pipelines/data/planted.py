"""A small data set with everything in it that the pages show: repeats, suspects, personal data, markup."""

import json
import random

HOSTILE = '<img src="http://127.0.0.1:9/beacon.png" onerror="window.broken=1"><script>window.broken=1</script>'
ANSI = "\x1b[31mred\x1b[0m \u202egnp.exe"
MAIL = "jane.roe@example.org"
PLACES = ("harbour", "library", "museum", "station", "market", "theatre", "garden", "school")
THINGS = ("ticket", "parcel", "key", "letter", "map", "lamp", "chair", "coat", "book", "bag")
VERBS = ("collect", "return", "repair", "exchange", "renew", "insure", "label", "store")


def rows(count=300, seed=5):
    """Questions about things at places, by three people from two sources, with planted defects at the end."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        place, thing, verb = draw.choice(PLACES), draw.choice(THINGS), draw.choice(VERBS)
        day, hour = draw.choice(("Monday", "Tuesday", "Friday", "Sunday")), draw.randint(7, 19)
        other = draw.choice(THINGS)
        made.append(
            {
                "prompt": f"Question {number}: how do I {verb} a {thing} at the {place} on {day}, and may I leave my "
                f"{other} there until {hour} o'clock?",
                "completion": f"Go to desk {number % 17} of the {place} before {hour} o'clock, show the receipt number "
                f"{draw.randint(1000, 9999)}, and ask the clerk to {verb} the {thing}. Your {other} can stay in "
                f"locker {number}, which the {place} opens on {day}.",
                "group": f"{place}-{number // 10}",
                "source": draw.choice(("desk notes", "letters")),
                "collector": "ops",
                "annotator": draw.choice(("jane", "joe", "kim")),
                "topic": place,
                "given": ("test", "validation", *["train"] * 8)[number % 10],
                "created_at": f"2024-{number % 12 + 1:02d}-{number % 28 + 1:02d}",
            }
        )
    return made + _planted(made)


def _planted(made):
    near = [row | {"completion": row["completion"].replace("receipt", "voucher"), "given": "test"} for row in made[:8]]
    near += [made[0] | {"completion": made[0]["completion"].replace("clerk", "porter")}]
    exact = [dict(row) for row in made[20:26]]
    person = [row | {"completion": f"{row['completion'][::-1]} Write to {MAIL}."} for row in made[30:33]]
    refused = made[40] | {
        "prompt": "Please give me the code of locker 12.",
        "completion": "I'm sorry, but I cannot help with that request, as an AI language model I am not able to do so.",
    }
    loop = made[41] | {"prompt": "Say where the bell hangs.", "completion": "the bell rings and " * 40}
    other = made[42] | {
        "prompt": "Where is the bell tower of the museum?",
        "completion": "Der Glockenturm steht "
        "hinter dem Museum, und am Sonntag darf man ihn ohne Eintritt besteigen, wenn der Wächter da ist.",
    }
    broken = made[43] | {
        "prompt": "Who opens the café?",
        "completion": "The cafÃ© is opened by FranÃ§ois, who"
        " keeps the keyâ€™s copy in the gardenâ€™s shed near the theatre.",
    }
    hostile = made[44] | {
        "prompt": f"What does this mean: {HOSTILE}",
        "completion": f"It is markup, and {ANSI} is not.",
    }
    return [*near, *exact, *person, refused, loop, other, broken, hostile]


def write(path, wanted=None):
    """The `wanted` rows, or all, as JSON lines at `path`."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in wanted or rows()]
    path.write_text("".join(lines), "utf-8")
    return path


def content(source, name="planted", **sections):
    """A recipe over them."""
    return {
        "name": name,
        "dataset": {"source": str(source), "group_by": "group", "label": "topic"},
        "audit": {"min_examples": 100},
        "models": [{"base": "HuggingFaceTB/SmolLM2-135M-Instruct"}],
    } | sections
