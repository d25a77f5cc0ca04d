"""Lengths in tokens and the share too long for each context size: of the base's tokenizer, and of others beside it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.auditing.survey import TOKEN_BOUNDS, Survey, lengths
from pipelines.data.corpus import Corpus
from pipelines.data.example import Turn
from pipelines.data.keys import tokenizer_here, tokenizer_identity
from pipelines.fingerprint import short
from pipelines.recipe import BaseModelChoice
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNCOUNTED = -1
"""Of a conversation that the template refuses."""
BATCH = 4096
"""Conversations that are counted together."""


def token_figures(survey: Survey, context_sizes: Sequence[int]) -> dict[str, Any]:
    """`tokens` and `over_length` by the base's own tokenizer, None where it is not on this machine."""
    column = survey.corpus.column("tokens")
    if survey.corpus.note.tokenizer is None or column.null_count == len(column):
        return {"tokens": None, "over_length": {}}
    figure = _figure(survey, column.fill_null(UNCOUNTED).to_numpy(), context_sizes)
    over_length = figure.pop("over_length")
    return {"tokens": {"tokenizer": survey.corpus.note.tokenizer, **figure}, "over_length": over_length}


def further_tokenizers(
    survey: Survey, choices: Sequence[BaseModelChoice], context_sizes: Sequence[int], workspace: Workspace
) -> list[dict[str, Any]]:
    """The same of other tokenizers, `total` None for one that is not on this machine: nothing is fetched."""
    found: list[dict[str, Any]] = []
    for choice in choices:
        folder = tokenizer_here(choice, workspace)
        counts = None if folder is None else _counted(survey.corpus, choice, folder)
        figure = {"total": None} if counts is None else _figure(survey, counts, context_sizes)
        found.append({"tokenizer": choice.base, **figure})
    return found


def _figure(survey: Survey, counts: "NDArray[np.int64]", context_sizes: Sequence[int]) -> dict[str, Any]:
    counted = counts[counts != UNCOUNTED]
    of_unique = counts[survey.first]
    shares = {str(size): round(int((counted > size).sum()) / survey.rows, 6) for size in sorted(context_sizes)}
    told = lengths(of_unique[of_unique != UNCOUNTED], TOKEN_BOUNDS) if len(counted) else {}
    return {
        "total": int(counted.sum()),
        "uncounted_rows": survey.rows - len(counted),
        **told,
        "over_length": shares,
    }


def _counted(corpus: Corpus, choice: BaseModelChoice, folder: Path) -> "NDArray[np.int64]":
    """Tokens of each row, kept beside the corpus: another rule of the audit does not count them anew."""
    import numpy as np

    kept = corpus.folder / f"tokens-{short(tokenizer_identity(choice))}.npy"
    if kept.is_file():
        found: NDArray[np.int64] = np.load(kept)
        return found
    counts = np.fromiter(_counts(corpus, folder), np.int64, len(corpus))
    partial = kept.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.save(stream, counts)
    partial.rename(kept)
    return counts


def _counts(corpus: Corpus, folder: Path) -> Iterator[int]:
    from pipelines.models.load import load_tokenizer

    tokenizer = load_tokenizer(folder)
    for batch in corpus.batches(["messages"], BATCH):
        texts = [_rendered(tokenizer, json.loads(text)) for text in batch["messages"].to_pylist()]
        known = [text for text in texts if text is not None]
        found = iter(tokenizer(known, add_special_tokens=False)["input_ids"] if known else [])
        for text in texts:
            yield UNCOUNTED if text is None else len(next(found))


def _rendered(tokenizer: Any, turns: list[Turn]) -> str | None:
    """As training writes it; None where the template refuses."""
    from jinja2.exceptions import TemplateError

    from pipelines.data.chat import escape

    clean = [turn | {"content": escape(tokenizer, turn["content"])[0]} for turn in turns]
    try:
        return str(tokenizer.apply_chat_template(clean, tokenize=False))
    except TemplateError:
        return None
