"""What a run came to, for people: the gates, base against tuned, and what to do next."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.gates import Report, Verdict
from pipelines.recipe import Recipe

if TYPE_CHECKING:
    from rich.table import Table

METRICS = {
    "loss": "loss, nats/token",
    "perplexity": "perplexity",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bleu": "BLEU",
    "meteor": "METEOR",
}
"""Name in a report -> name for people, in the order they are shown."""

COLOURS = {"open": "green", "closed": "bold red", "waived": "yellow", "not_applicable": "dim"}


def show_summary(recipe: Recipe, reports: list[Report], recipe_path: str, facts: Sequence[str] = ()) -> None:
    """Print the tables, further `facts` (time, memory) and the next commands on standard output."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print()
    console.print(gate_table(recipe, reports))
    evaluation = next((report for report in reports if report.stage == "evaluate"), None)
    if evaluation is not None:
        console.print(comparison_table(evaluation.figures))
    for fact in facts:
        console.print(fact, markup=False)
    console.print("\nWhat to do next", style="bold")
    for line in next_steps(reports, recipe_path):
        console.print(f"  {line}", markup=False, soft_wrap=True)


def gate_table(recipe: Recipe, reports: list[Report]) -> "Table":
    """A row for each gate of each report."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Gates of {recipe.name}", title_justify="left")
    for column in ("stage", "gate", "verdict", "evidence"):
        table.add_column(column, overflow="fold")
    for report in reports:
        for number, gate in enumerate(report.gates):
            verdict = Text(str(gate.verdict), style=COLOURS[gate.verdict])
            table.add_row(report.stage if number == 0 else "", gate.gate, verdict, Text(gate.evidence))
        if not report.gates:
            table.add_row(report.stage, "", Text("done", style="green"), "")
    return table


def comparison_table(figures: dict[str, Any]) -> "Table":
    """Base against tuned on the test side, with the interval of the paired difference where there is one."""
    from rich.table import Table
    from rich.text import Text

    candidates, comparisons = figures["candidates"], figures.get("comparisons", {})
    caption = "Loss and perplexity: lower is better. Bold: the interval excludes zero."
    table = Table(title="Base against tuned, test side", title_justify="left", caption=caption, caption_justify="left")
    table.add_column("metric")
    for column in ("base", "tuned", "tuned - base [95 %]", "examples"):
        # A figure that is broken over two lines is misread.
        table.add_column(column, justify="right", no_wrap=True)
    for metric, label in METRICS.items():
        base, tuned = (candidates.get(name, {}).get(metric) for name in ("base", "tuned"))
        if base is None or tuned is None:
            continue
        compared = comparisons.get(metric)
        if compared is None:
            table.add_row(label, f"{base:.4g}", f"{tuned:.4g}", f"{tuned - base:+.3g}", "")
            continue
        low, high = compared["low"], compared["high"]
        interval = Text(
            f"{compared['difference']:+.3g} [{low:+.3g}, {high:+.3g}]",
            style="bold" if low > 0 or high < 0 else "dim",
        )
        table.add_row(label, f"{base:.4g}", f"{tuned:.4g}", interval, str(compared["n"]))
    return table


def next_steps(reports: list[Report], recipe_path: str) -> list[str]:
    """Commands that go on from here."""
    last = reports[-1]
    if last.verdict is Verdict.CLOSED:
        steps = [f"{gate.gate} keeps the rest from starting: {gate.evidence}" for gate in last.closed_gates]
        steps += [f"- {finding.remedy}" for finding in last.findings if finding.severity == "error"]
        gate = last.closed_gates[0].gate
        return [
            *steps,
            f"sluice {last.stage} {recipe_path}    shows the findings with samples",
            f'sluice waive {recipe_path} {gate} --because "..." --by NAME    if a person answers for it',
        ]
    return [
        f"sluice serve {recipe_path}    hosts base and tuned behind an OpenAI-compatible address",
        "sluice panel    shows the gates, the curves and both models side by side in a browser",
        f"sluice rollback {recipe_path}    puts the deployment before this one back",
    ]
