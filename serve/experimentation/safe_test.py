"""The safe test of two proportions: exact at every look, however few the units.

Turner, Ly and Grunwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping",
Journal of Statistical Planning and Inference 230 (2024), arXiv 2106.02693. It needs no minimum of units, as nothing
in it is approximate; for large samples the confidence sequence is the sharper one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from serve.experimentation.arms import Arm, binary_arm

PRIOR = 0.18
"""Both parameters of the beta prior on each proportion: the paper's choice, of least regret for blocks of 1 and 1."""


@dataclass(frozen=True)
class Blocks:
    """Units of both arms as they came in, block by block (first axis; further axes are streams of their own).

    A block must be closed without regard to its outcomes: after a number of units, or at the end of a day.
    """

    control_n: np.ndarray
    control_successes: np.ndarray
    treated_n: np.ndarray
    treated_successes: np.ndarray

    def __post_init__(self) -> None:
        sides = ((self.control_n, self.control_successes), (self.treated_n, self.treated_successes))
        for n, successes in sides:
            assert np.all((successes >= 0) & (successes <= n)), "more successes than units in a block"

    def __len__(self) -> int:
        return len(self.control_n)

    @property
    def control(self) -> Arm:
        """The sums of all blocks of one stream."""
        return binary_arm(int(self.control_n.sum()), int(self.control_successes.sum()))

    @property
    def treated(self) -> Arm:
        """The sums of all blocks of one stream."""
        return binary_arm(int(self.treated_n.sum()), int(self.treated_successes.sum()))


def blocks_of(units: Iterable[tuple[bool, bool]]) -> Blocks:
    """The blocks of units as they came in: (in the treated arm, a success) of each.

    A block is closed as soon as both arms have a unit in it. Those of one arm that wait at the end are a block too:
    they are counted, and no evidence.
    """
    rows: list[list[int]] = []
    for treated, success in units:
        if not rows or (rows[-1][0] and rows[-1][2]):
            rows.append([0, 0, 0, 0])
        rows[-1][2 * treated] += 1
        rows[-1][2 * treated + 1] += success
    return Blocks(*np.array(rows, dtype=int).reshape(-1, 4).T)


def units_of_a_safe_test(weights: Sequence[float], alpha: float) -> int:
    """Units of both arms after which a difference is shown if one arm always succeeds and the other never.

    `weights`: of the two; units come in blocks of their ratio. 0 where one has none.
    """
    if not min(weights) > 0:
        return 0
    sizes = [round(weight / min(weights)) for weight in weights]
    blocks = 1
    while p_value_now(Blocks(*np.tile([[sizes[0]], [0], [sizes[1]], [sizes[1]]], blocks))) > alpha:
        blocks += 1
    return blocks * sum(sizes)


def p_value_now(blocks: Blocks) -> float:
    """P of one stream by the e-value that it has come to, at most 1: as valid at whatever moment one stops.

    It may rise again, as what later units say may take back what the first ones said.
    """
    return min(1.0, float(np.exp(-log_e_values(blocks)[-1]))) if len(blocks) else 1.0


def log_e_values(blocks: Blocks, *, prior: float = PRIOR) -> np.ndarray:
    """Natural logarithm of the e-value after each block, against the two proportions being one.

    Each block multiplies by the likelihood ratio of two proportions, the means of their beta posteriors before the
    block, to the one proportion that is their mean weighted by the block's units. It is at most 1 on average if there
    is no difference (section 2, theorem 1), whatever the prior; the plug-in is that of section 4. A block without
    units of one arm leaves the e-value as it is.
    """
    assert prior > 0, "the beta prior needs parameters above zero"
    control = _before(blocks.control_n, blocks.control_successes, prior)
    treated = _before(blocks.treated_n, blocks.treated_successes, prior)
    size = np.maximum(blocks.control_n + blocks.treated_n, 1)
    same = (blocks.control_n * control + blocks.treated_n * treated) / size
    both = (blocks.control_n > 0) & (blocks.treated_n > 0)
    gained = _gain(blocks.control_n, blocks.control_successes, control, same)
    gained = gained + _gain(blocks.treated_n, blocks.treated_successes, treated, same)
    # With one arm only the two proportions are the same one; the division left rounding.
    return np.asarray(np.cumsum(np.where(both, gained, 0.0), axis=0))


def _before(n: np.ndarray, successes: np.ndarray, prior: float) -> np.ndarray:
    """The posterior mean from the blocks before each."""
    earlier_n, earlier = np.cumsum(n, axis=0) - n, np.cumsum(successes, axis=0) - successes
    return np.asarray((earlier + prior) / (earlier_n + 2 * prior))


def _gain(n: np.ndarray, successes: np.ndarray, proportion: np.ndarray, same: np.ndarray) -> np.ndarray:
    # Without units in the block `same` may be 0, and nothing is gained or lost.
    usual = np.where((same > 0) & (same < 1), same, 0.5)
    won = successes * np.log(proportion / usual)
    return np.asarray(won + (n - successes) * np.log((1 - proportion) / (1 - usual)))
