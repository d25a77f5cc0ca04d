"""Answers that follow a JSON schema by construction: a token that could not go on so is never chosen."""

from functools import lru_cache
from typing import Any

import torch

from cluster.errors import first_line
from pipelines.engines.protocol import SchemaRefused
from pipelines.engines.schema import check_schema

REMEMBERED = 64
"""Schemas of an engine that are not compiled again."""


class Grammars:
    """Compiles the schemas of one engine's requests; from any thread."""

    def __init__(self, tokenizer: Any, vocabulary: int, ends: frozenset[int]) -> None:
        """`vocabulary`: the width of the model's logits."""
        self._about = (tokenizer, vocabulary, sorted(ends))
        self._compiler: Any = None
        self.compiled = lru_cache(REMEMBERED)(self._compile)
        """A schema, ready to begin with. Raises SchemaRefused."""

    def start(self, schema: str) -> "Grammar":
        """What a new answer may be. Raises SchemaRefused for what is no schema, or one that cannot be followed."""
        import xgrammar

        return Grammar(xgrammar.GrammarMatcher(self.compiled(schema)), self._about[1])

    def _compile(self, schema: str) -> Any:
        check_schema(schema)
        try:
            import xgrammar

            if self._compiler is None:
                tokenizer, vocabulary, ends = self._about
                about = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary, stop_token_ids=ends)
                self._compiler = xgrammar.GrammarCompiler(about, max_threads=1, cache_enabled=False)
            # With any whitespace a model may go on with blanks for ever.
            return self._compiler.compile_json_schema(schema, any_whitespace=False)
        except ModuleNotFoundError:
            raise SchemaRefused("No schema can be followed where this runs: xgrammar is not installed.") from None
        except Exception as error:  # xgrammar has no family of its own
            raise SchemaRefused(f"The schema cannot be followed: {first_line(error)}") from None


class Grammar:
    """One answer's place in its schema."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        import xgrammar

        self._matcher = matcher
        self._allowed = xgrammar.allocate_token_bitmask(1, vocabulary)

    def allowed(self, logits: torch.Tensor) -> torch.Tensor:
        """A copy of the logits (vocabulary) in which what may not come next is impossible: perhaps everything."""
        import xgrammar

        self._matcher.fill_next_token_bitmask(self._allowed)
        row = logits.float().cpu().unsqueeze(0).clone()
        xgrammar.apply_token_bitmask_inplace(row, self._allowed)
        return row[0].to(logits.device)

    def accept(self, token: int) -> bool:
        """Go on after a token; False: it was not allowed."""
        return bool(self._matcher.accept_token(token))
