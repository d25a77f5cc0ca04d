"""What a recipe says of where rows go, as arrays: who they are, what they were, and what draws their sides."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.data.corpus import Corpus
from pipelines.data.privacy.private import Masking
from pipelines.data.sides.drawing import ByTime, by_hash, by_label, folds
from pipelines.data.sides.given import given_places, given_sides
from pipelines.data.sides.past import Past, Tested
from pipelines.data.sides.splitting import (
    HELD,
    SIDES,
    TEST,
    Choose,
    History,
    Items,
    Places,
    assign,
    component_keys,
    components,
)
from pipelines.data.sides.times import times_of
from pipelines.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Placing:
    """Rows of a corpus that are to be placed; the arrays have an entry for each."""

    items: Items
    history: History
    recipe: Recipe
    choose: Choose
    given: "NDArray[np.int8] | None"
    """The sides that the data bring (`split.column`)."""
    instructions: dict[int, int]
    """A row of the corpus -> rows with its prompt: prompts of more than `split.shared_prompts` rows."""

    def place(self, edges: "NDArray[np.int64]", held: "NDArray[np.bool_]") -> Places:
        """The place of each row; `held`: rows whose given side leaks and that are held out for it."""
        import numpy as np

        if self.given is None:
            return assign(self.items, edges, self.choose, self.history)
        side = np.where(held, HELD, self.given).astype(np.int8)
        return given_places(self.items, edges, self.history, side)

    @property
    def cutoffs(self) -> tuple[int, int] | None:
        """The times by which rows were placed, where they were."""
        return self.choose.cutoffs if isinstance(self.choose, ByTime) else None

    def components(self, learnt: "NDArray[np.bool_]", edges: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """For each row that is learnt from the number of what it belongs together with, -1 for the others."""
        import numpy as np

        component = np.full(len(self.items), -1)
        component[learnt] = components(self.items, np.flatnonzero(learnt), edges, tied=True)
        return component

    def folds(self, component: "NDArray[np.int64]", count: int) -> "NDArray[np.int8]":
        """One of `count` folds for each row that is learnt from, -1 for the others: whole components."""
        import numpy as np

        fold, learnt = np.full(len(self.items), -1, np.int8), np.flatnonzero(component >= 0)
        everyone = np.ones(int(component.max(initial=-1)) + 1, np.bool_)
        keys = component_keys(self.items, learnt, component[learnt], everyone)
        fold[learnt] = folds(component[learnt], keys, count, self.recipe.seed)
        return fold


def make_placing(
    corpus: Corpus,
    rows: "NDArray[np.int64]",
    text: "NDArray[np.int64]",
    recipe: Recipe,
    past: Past,
    tested: Tested | None,
    mask: Masking,
) -> Placing:
    """What is known of these rows.

    `text`: the number of each corpus row's text; `mask`: how the table calls groups with private names.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    column = corpus.column("id").combine_chunks().take(pa.array(rows))
    group, groups = corpus.codes("group")
    history = past.history(column)
    prompt, instructions = _prompts(corpus, rows, recipe.split.shared_prompts)
    pull = None
    if tested is not None:
        bound = pc.is_in(column, tested.ids).to_numpy(zero_copy_only=False)
        for called in (groups, [mask.name(name) for name in groups]):
            named = pc.is_in(pa.array([*called, None], pa.string()), tested.groups.drop_null())
            bound |= named.to_numpy(zero_copy_only=False)[group[rows]]
        asked = pc.is_in(corpus.column("prompt_key").take(pa.array(rows)), tested.prompts(recipe.dataset.instruction))
        bound |= asked.to_numpy() & (prompt >= 0)
        pull = np.where(bound, 1 << TEST, 0).astype(np.uint8)
    given = given_sides(corpus, rows, recipe.split.column) if recipe.split.column else None
    return Placing(
        items=Items(np.array(column.to_pylist(), np.bytes_), text[rows], group[rows], groups, prompt, pull),
        history=history,
        recipe=recipe,
        choose=_choose(corpus, rows, recipe, past, history),
        given=given,
        instructions=instructions,
    )


def _prompts(corpus: Corpus, rows: "NDArray[np.int64]", most: int) -> "tuple[NDArray[np.int64], dict[int, int]]":
    """(number of each row's prompt, -1 for one of more than `most` rows; a row with each of these -> its rows).

    A number of rows and not a share of them: as data grow an instruction stays one, and no old rows are tied anew.
    """
    import numpy as np

    names, first, number, counts = np.unique(
        corpus.numbers("prompt_key")[rows], return_index=True, return_inverse=True, return_counts=True
    )
    none = names < 0
    many = np.flatnonzero((counts > most) & ~none)
    tying = (counts <= most) & ~none
    instructions = dict(zip(rows[first[many]].tolist(), counts[many].tolist(), strict=True))
    return np.where(tying[number], number, -1).astype(np.int64), instructions


def _choose(corpus: Corpus, rows: "NDArray[np.int64]", recipe: Recipe, past: Past, history: History) -> Choose:
    """What draws the sides of those that belong to nobody: time where the recipe says so, else labels, else a hash."""
    import numpy as np

    shares, seed = recipe.split.shares, recipe.seed
    if recipe.split.by_time:
        return ByTime(times_of(corpus, rows), shares, past.cutoffs)
    if not recipe.dataset.label:
        return by_hash(shares, seed, len(rows))
    codes, names = corpus.codes("label")
    # By name, so that a tie between labels does not depend on the order of the rows; the last is of those without.
    rank = np.argsort(np.argsort(np.array([*names, ""], np.str_)[:-1])) if names else np.zeros(0, np.int64)
    label = np.append(rank, len(names))[codes[rows]]
    counted = history.stays & (history.side < len(SIDES))
    cells = np.bincount(label[counted] * len(SIDES) + history.side[counted], minlength=(len(names) + 1) * len(SIDES))
    return by_label(label, cells.reshape(-1, len(SIDES)), shares, seed)
