"""How often a key may ask: a token bucket, a pure function of the times at which it is asked."""


class TokenBucket:
    """Holds as many tokens as requests are allowed per minute; a request takes one, and they come back evenly.

    So that many may come at once, and from then on one every 60 / `per_minute` seconds.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        """A full bucket at `now`, in seconds of any clock that does not go back."""
        self.per_minute = per_minute
        self._tokens, self._at = float(per_minute), now

    def take(self, now: float) -> float:
        """0 when the request may go on, else the seconds after which one may; then nothing is taken."""
        passed = max(0.0, now - self._at)
        self._tokens = min(float(self.per_minute), self._tokens + passed * self.per_minute / 60)
        self._at = max(self._at, now)
        # Who waits exactly as long as was said must not be refused for a rounding error.
        if self._tokens < 1 - 1e-6:
            return (1 - self._tokens) * 60 / self.per_minute
        self._tokens = max(0.0, self._tokens - 1)
        return 0.0
