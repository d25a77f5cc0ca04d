"""Where each arm is answered: the models in memory, and how they come and go while others answer."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.models.candidate import Candidate, check_adapter

if TYPE_CHECKING:
    from pipelines.engines.protocol import Engine, EngineOptions, Token
    from serve.hosting import Prompt, Told

logger = logging.getLogger("sluice.serve")

HELLO = [{"role": "user", "content": "Hello"}]
"""What a model must have answered before an arm is its."""

UNLOADING_S = 60
"""How long changes wait for memory to be given back; it is then given back later."""

Weights = tuple[str, str | None, str]


@dataclass(eq=False)
class Place:
    """A model in memory, and how to ask it."""

    weights: Weights
    """Its folders where they were recorded, and its fingerprint: what tells it from other models."""
    base_folder: str
    """On this machine; models over the same base share an engine."""
    engine: "Engine"
    adapter: str | None
    """What the engine calls the adapter; never used twice, so that two versions may be there at once."""
    answers: int = 0
    """That run."""

    def tokens(self, prompt: "Prompt", tools: Sequence[dict[str, Any]] = ()) -> tuple[int, ...]:
        """A prompt as the model reads it. Raises UserError for a conversation that its template cannot put."""
        from pipelines.data.chat import continuation_tokens, prompt_tokens
        from pipelines.data.tool_chat import has_tools, tool_prompt_tokens

        tokenizer = self.engine.tokenizer
        if isinstance(prompt, str):
            return tuple(continuation_tokens(tokenizer, prompt))
        if tools or has_tools(prompt):
            return tuple(tool_prompt_tokens(tokenizer, prompt, tools))
        return tuple(prompt_tokens(tokenizer, prompt))

    @cached_property
    def _before(self) -> tuple[list[int], int]:
        """Tokens behind which one is decoded, and their width: some tokenizers drop the blank of a text's first."""
        tokenizer = self.engine.tokenizer
        before = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        return before, len(tokenizer.decode(before, clean_up_tokenization_spaces=False))

    def told(self, token: "Token") -> "Told":
        """A token as clients read it."""
        from serve.hosting import Told

        tokenizer, (before, width) = self.engine.tokenizer, self._before

        def text(number: int) -> str:
            return str(tokenizer.decode([*before, number], clean_up_tokenization_spaces=False))[width:]

        assert token.logprob is not None, "nobody asked for it"
        likeliest = tuple(Told(text(number), logprob) for number, logprob in token.likeliest)
        return Told(text(token.id), token.logprob, likeliest)


class Places:
    """The models in memory, and which of them each arm has.

    `switch` and `tidy` load and unload, and block: one after another, by the one thread of `worker`. All else is quick
    and may come from any thread.
    """

    def __init__(self, options: "EngineOptions") -> None:
        self.worker = ThreadPoolExecutor(1, "hosting")
        self._options = options
        self._lock = threading.Lock()
        self._arms: dict[str, Place] = {}
        self._loaded: list[Place] = []
        self._numbers = itertools.count(1)
        self._past_tokens = 0
        self.version = ""
        """The registered version that the arms are; empty until there was a switch that named one."""

    def switch(
        self, candidates: Mapping[str, Candidate], version: str = "", is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Give each arm its candidate, all at one moment, once each has generated a token.

        Answers that run end as begun, and what no arm has any more is unloaded after its last one. Raises UserError
        for a candidate that cannot be loaded here or does not fit its base, EngineFailed for one that cannot generate;
        then, and when it is no longer wanted once it is loaded, nothing has changed.
        """
        try:
            places = {arm: self._found(candidate) for arm, candidate in candidates.items()}
        except BaseException:
            # Those of them that were loaded before it.
            self.tidy()
            raise
        if is_wanted():
            with self._lock:
                self._arms.update(places)
                self.version = version
        self.tidy()

    def tidy(self) -> None:
        """Unload what no arm has and no answer needs: the adapter, and the engine when it was the last over a base."""
        with self._lock:
            needed = set(self._arms.values())
            unused = [place for place in self._loaded if place not in needed and not place.answers]
            self._loaded = [place for place in self._loaded if place not in unused]
            engines = {place.engine for place in self._loaded}
            ended = {place.engine for place in unused} - engines
            self._past_tokens += sum(engine.generated_tokens for engine in ended)
        try:
            for engine in ended:
                engine.close()
            for place in unused:
                if place.engine in engines and place.adapter is not None:
                    place.engine.remove_adapter(place.adapter, UNLOADING_S)
        except Exception:
            # Memory that is not given back is no reason to take a switch for failed.
            logger.exception("a model could not be unloaded")

    @contextmanager
    def answering(self, arm: str) -> Iterator[tuple[Place, str]]:
        """The place of `arm` as it is now, and its version; it stays loaded inside. Raises KeyError where none is."""
        with self._lock:
            if arm not in self._arms:
                raise KeyError(f"nothing is hosted for {arm!r}; there are {list(self._arms)}")
            place, version = self._arms[arm], self.version
            place.answers += 1
        try:
            yield place, version
        finally:
            with self._lock:
                place.answers -= 1
                unused = not place.answers and place not in self._arms.values()
            if unused:
                self.worker.submit(self.tidy)

    @property
    def arms(self) -> dict[str, Place]:
        """The place of each arm."""
        with self._lock:
            return dict(self._arms)

    @property
    def engines(self) -> set["Engine"]:
        """All that are loaded, also for answers of former arms."""
        with self._lock:
            return {place.engine for place in self._loaded}

    @property
    def generated_tokens(self) -> int:
        """By all engines, also those that are gone."""
        with self._lock:
            return self._past_tokens + sum(engine.generated_tokens for engine in {one.engine for one in self._loaded})

    def _found(self, candidate: Candidate) -> Place:
        """The candidate in memory, loaded if it was not."""
        weights = (candidate.base_folder, candidate.adapter_folder, candidate.fingerprint)
        place = next((place for place in self._loaded if place.weights == weights), None)
        if place is None:
            place = self._load(candidate, weights)
            with self._lock:
                self._loaded.append(place)
        return place

    def _load(self, candidate: Candidate, weights: Weights) -> Place:
        """The candidate in memory, after its first token."""
        from pipelines.engines.protocol import GenerationRequest, open_engine
        from pipelines.workspace import Workspace

        # This may be another machine than the one that recorded the folders.
        one = candidate.here(Workspace())
        if one.adapter_folder is not None and one.base_fingerprint:
            check_adapter(Path(one.adapter_folder), one.base_fingerprint)
        shared = next((place.engine for place in self._loaded if place.base_folder == one.base_folder), None)
        name = None if one.adapter_folder is None else f"{one.name}-{next(self._numbers)}"
        adapters = {} if name is None else {name: str(one.adapter_folder)}
        engine = shared or open_engine(one.base_folder, adapters, self._options)
        if shared is not None and name is not None:
            shared.add_adapter(name, str(one.adapter_folder))
        place = Place(weights, one.base_folder, engine, name)
        try:
            place.engine.generate([GenerationRequest(place.tokens(HELLO), place.adapter, max_new_tokens=1)])
        except BaseException:
            if shared is None:
                place.engine.close()
            elif place.adapter is not None:
                place.engine.remove_adapter(place.adapter, UNLOADING_S)
            raise
        return place
