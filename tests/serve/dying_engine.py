"""An engine that dies on the way."""

from contextlib import aclosing


class DyingEngine:
    """The real engine, which dies after so many events, and then says nothing of its load."""

    def __init__(self, engine, events):
        self._engine, self._events = engine, events

    async def answer(self, *arguments):
        async with aclosing(self._engine.answer(*arguments)) as events:
            for _ in range(self._events):
                yield await anext(events)
        raise ConnectionError("the actor died")

    async def health(self):
        raise ConnectionError("the actor died")
