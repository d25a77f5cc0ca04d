"""Defects as data have them, planted into rows at stated rates."""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.data.similarity.duplicates import normalise, similarity

Row = dict[str, str]

RATES = {"swapped": 0.05, "near": 0.03, "private": 0.01, "encoding": 0.005}
"""Defect -> share of rows: another's answer; nearly another row, in another group; personal data or a secret in the
answer; an answer that was decoded wrongly."""

NEAR = 0.7
"""Least similarity of a planted near-duplicate: the threshold that recipes have unless they say otherwise."""


@dataclass(frozen=True)
class Planted:
    """A defect of one row."""

    row: int
    defect: str
    """A name of RATES."""
    of: int | None = None
    """The row that a near-duplicate resembles, or whose answer was taken."""

    def behind(self, rows: int) -> "Planted":
        """The same, where so many rows stand before."""
        return Planted(self.row + rows, self.defect, None if self.of is None else self.of + rows)


def planted(rows: list[Row], rates: dict[str, float], chance: random.Random) -> tuple[list[Row], list[Planted]]:
    """The rows with the defects, each in at most one of them, and what was done."""
    rows, truth = [dict(row) for row in rows], []
    waiting = chance.sample(range(len(rows)), len(rows))
    for defect, rate in rates.items():
        count = round(rate * len(rows))
        chosen, waiting = waiting[:count], waiting[count:]
        truth += _PLANTERS[defect](rows, chosen, waiting, chance)
    return rows, truth


def _swap(rows: list[Row], chosen: list[int], others: list[int], chance: random.Random) -> list[Planted]:
    """Each gets the answer of the next one, of another group."""
    order = sorted(chosen, key=lambda number: rows[number]["group"])
    half = len(order) // 2
    takes_from = {taker: order[(place + half) % len(order)] for place, taker in enumerate(order)}
    given = {taker: rows[giver]["completion"] for taker, giver in takes_from.items()}
    found = []
    for taker, giver in takes_from.items():
        if rows[taker]["group"] != rows[giver]["group"] and given[taker] != rows[taker]["completion"]:
            rows[taker]["completion"] = given[taker]
            found.append(Planted(taker, "swapped", giver))
    return found


def _resemble(rows: list[Row], chosen: list[int], others: list[int], chance: random.Random) -> list[Planted]:
    """Each becomes another row of 40 words or more with one to three words changed, and keeps its own group.

    As near as NEAR at least: three words of forty make another text.
    """
    long = [n for n in others if len(_normal(rows[n]).split()) >= 40]
    found = []
    for number in chosen:
        of = next((n for n in chance.choices(long, k=20) if rows[n]["group"] != rows[number]["group"]), None)
        for changes in (chance.randint(1, 3), 1, 1, 1):
            answer = rows[of]["completion"].split(" ") if of is not None else []
            for _ in range(changes if answer else 0):
                answer[chance.randrange(len(answer))] = chance.choice(("another", "certain", "given", "new"))
            copy = rows[number] | {"prompt": rows[of or 0]["prompt"], "completion": " ".join(answer)}
            if of is not None and NEAR <= similarity(_normal(copy), _normal(rows[of])) < 1:
                rows[number] = copy
                found.append(Planted(number, "near", of))
                break
    return found


def _normal(row: Row) -> str:
    return normalise(f"{row['prompt']}\n{row['completion']}")


def _expose(rows: list[Row], chosen: list[int], others: list[int], chance: random.Random) -> list[Planted]:
    for number in chosen:
        secret = chance.choice((_mail, _phone, _card, _iban, _token))(chance)
        words = rows[number]["completion"].split(" ")
        words.insert(chance.randint(0, len(words)), secret)
        rows[number]["completion"] = " ".join(words)
    return [Planted(number, "private") for number in chosen]


def _damage(rows: list[Row], chosen: list[int], others: list[int], chance: random.Random) -> list[Planted]:
    """Words with accents, stored as UTF-8 and read as if each byte were a character."""
    for number in chosen:
        words = rows[number]["completion"].split(" ")
        for _ in range(2):
            words.insert(chance.randint(0, len(words)), chance.choice(_ACCENTED))
        rows[number]["completion"] = " ".join(words).encode().decode("cp1252", errors="replace")
    return [Planted(number, "encoding") for number in chosen]


_ACCENTED = ("café", "naïve", "Größe", "señor", "“so”", "l\u2019été")
_PLANTERS: dict[str, Callable[[list[Row], list[int], list[int], random.Random], list[Planted]]] = {
    "swapped": _swap,
    "near": _resemble,
    "private": _expose,
    "encoding": _damage,
}


def _mail(chance: random.Random) -> str:
    name = "".join(chance.choices(string.ascii_lowercase, k=6))
    return f"{name}.{chance.choice(('berg', 'stein', 'wood'))}@{chance.choice(('firm', 'post', 'home'))}-mail.com"


def _phone(chance: random.Random) -> str:
    return f"+49 30 {chance.randint(2000000, 9899999)}"


def _card(chance: random.Random) -> str:
    digits = [4, *chance.choices(range(10), k=14)]
    doubled = [2 * d - 9 * (2 * d > 9) if place % 2 == 0 else d for place, d in enumerate(digits)]
    return "".join(map(str, [*digits, -sum(doubled) % 10]))


def _iban(chance: random.Random) -> str:
    account = "".join(chance.choices(string.digits, k=18))
    check = 98 - int(f"{account}131400") % 97
    return f"DE{check:02}{account}"


def _token(chance: random.Random) -> str:
    return "ghp" + "_" + "".join(chance.choices(string.ascii_letters + string.digits, k=36))
