"""The model card: what a model was made from, what it was measured to do, who let what pass, how to load it.

Everything that comes from data, recipes and people goes in as text: none of it can become markup or HTML.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from pipelines.fingerprint import short
from pipelines.gates import Report, Verdict
from pipelines.markdown import block, code, table, text
from pipelines.markup import number

LIBRARIES = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}
RELATIONS = {"adapter": "adapter", "merged": "finetune", "gguf": "quantized"}
"""How a hub calls what this model is to its base."""

METRIC_TYPES = {"rouge1": "rouge", "rouge2": "rouge", "rougeL": "rouge"}
"""A hub's name of a metric where it is not ours."""

LISTED = 20
"""Origins of examples that are named."""


@dataclass(frozen=True)
class Subject:
    """What the card speaks of."""

    form: str
    """adapter, merged or gguf."""
    file: str
    """The GGUF file's name; empty for the other forms."""
    base: dict[str, Any]
    """The base's record: name, revision, origin, licence, each where it is known."""
    is_encoder_decoder: bool
    check: str
    """How the exported weights were compared with those that were evaluated, in a sentence."""


def model_card(subject: Subject, content: dict[str, Any], reports: dict[str, Report]) -> str:
    """The card as Markdown; `content` is the model's lineage, and `reports` are those it names."""
    parts = [
        f"---\n{_yaml(_front_matter(subject, content, reports))}---",
        f"# {text(content['recipe']['name'])}",
        *_purpose(subject, content, reports),
        "## How to load it",
        *_loading(subject, content),
        "## What it was measured to do",
        *_metrics(reports["evaluate"]),
        "## Gates",
        _gates(reports),
        "## Waivers",
        _waivers(content["waivers"]),
        "## Data",
        *_data(content, reports),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(subject, content, reports)),
        "## Recipe",
        "Resolved, with the values that were really trained with.",
        block(_yaml(content["recipe"]), "yaml"),
    ]
    return "\n\n".join(parts) + "\n"


def _yaml(value: dict[str, Any]) -> str:
    # In ASCII: no character that reorders or hides text can stand in it.
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=False, width=10_000)


def _front_matter(subject: Subject, content: dict[str, Any], reports: dict[str, Report]) -> dict[str, Any]:
    train, name = content["train"], content["recipe"]["name"]
    # A folder of ours is no name that a hub knows.
    named = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", train["base"], re.ASCII)
    licence = subject.base.get("licence")
    task = "text2text-generation" if subject.is_encoder_decoder else "text-generation"
    results = [
        {"type": METRIC_TYPES.get(metric, metric), "name": f"{metric} (test side)", "value": value}
        for metric, value in reports["evaluate"].figures["candidates"]["tuned"].items()
    ]
    dataset = {"type": "sluice", "name": name, "split": "test", "revision": content["data"]["split"]}
    return {
        **({"license": str(licence).lower()} if licence else {}),
        **({"base_model": train["base"], "base_model_relation": RELATIONS[subject.form]} if named else {}),
        "library_name": LIBRARIES[subject.form],
        "pipeline_tag": task,
        "tags": ["sluice", train["method"], subject.form],
        "model-index": [
            {
                "name": f"{name}-tuned",
                "results": [{"task": {"type": task}, "dataset": dataset, "metrics": results}],
            }
        ],
    }


def _purpose(subject: Subject, content: dict[str, Any], reports: dict[str, Report]) -> Iterator[str]:
    train, figures = content["train"], reports["train"].figures
    base = f"{code(train['base'])} (revision {code(subject.base.get('revision') or train.get('base_revision'))})"
    yield (
        f"{text(train['method'])} fine-tuning of {base} on {figures.get('examples', 0):,} examples, to answer as they "
        "do: see Data for what they are, and Limits for what that leaves open."
    )
    rows = [
        ("model", code(train["model_fingerprint"])),
        ("base", code(train["base_fingerprint"])),
        ("chat template", code(train.get("chat_template") or "not recorded")),
        ("data", f"version {code(content['data']['version'])}, {code(content['data']['split'])}"),
        *((f"{stage} report", code(entry["key"])) for stage, entry in content["reports"].items()),
    ]
    yield table(("fingerprint (SHA-256) of", ""), rows)
    yield text(subject.check)


def _loading(subject: Subject, content: dict[str, Any]) -> Iterator[str]:
    kind = "AutoModelForSeq2SeqLM" if subject.is_encoder_decoder else "AutoModelForCausalLM"
    base = json.dumps(content["train"]["base"])
    if subject.form == "gguf":
        yield block(f"llama-server --model {subject.file} --jinja --port 8000", "sh")
    elif subject.form == "adapter":
        yield block(
            "from peft import PeftModel\n"
            f"from transformers import {kind}, AutoTokenizer\n\n"
            'folder = "this/folder"\n'
            "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
            f'base = {kind}.from_pretrained({base}, dtype="auto")\n'
            "model = PeftModel.from_pretrained(base, folder)",
            "python",
        )
    else:
        yield block(
            f"from transformers import {kind}, AutoTokenizer\n\n"
            'folder = "this/folder"\n'
            "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
            f'model = {kind}.from_pretrained(folder, dtype="auto")',
            "python",
        )
    yield "Generation ends at the tokens of `generation_config.json`: those that training taught it to end with."
    yield "Behind an OpenAI-compatible address (`sluice serve`, or any server that loads this folder):"
    yield block(
        "from openai import OpenAI\n\n"
        'client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")\n'
        "answer = client.chat.completions.create(\n"
        f"    model={json.dumps(content['recipe']['name'] + '-tuned')}, "
        'messages=[{"role": "user", "content": "..."}]\n'
        ")",
        "python",
    )


def _metrics(report: Report) -> Iterator[str]:
    figures = report.figures
    base, tuned = figures["candidates"]["base"], figures["candidates"]["tuned"]
    own, compared = figures.get("intervals", {}), figures.get("comparisons", {})
    rows = [
        (
            text(metric) + (" (primary)" if metric == figures.get("primary") else ""),
            _with_interval(base[metric], own.get("base", {}).get(metric)),
            _with_interval(value, own.get("tuned", {}).get(metric)),
            _with_interval(compared[metric]["difference"], compared[metric]) if metric in compared else "",
        )
        for metric, value in tuned.items()
    ]
    yield table(("metric", "base", "tuned", "tuned - base"), rows)
    if "examples" in figures:
        method = text(figures["method"]) if compared else "one group alone, so no interval"
        yield f"On {figures['examples']:,} test examples in {figures['groups']:,} groups; {method}."


def _with_interval(value: float, interval: dict[str, Any] | None) -> str:
    bounds = f" \\[{number(interval['low'])}, {number(interval['high'])}\\]" if interval else ""
    return f"{number(value)}{bounds}"


def _gates(reports: dict[str, Report]) -> str:
    rows = [
        (code(gate.gate), text(gate.verdict), text(gate.evidence))
        for report in reports.values()
        for gate in report.gates
    ]
    return table(("gate", "verdict", "evidence"), rows)


def _waivers(waivers: list[dict[str, Any]]) -> str:
    if not waivers:
        return "None: no gate was passed by a person's decision."
    rows = [
        (
            code(waiver["gate"]),
            text(waiver["by"]),
            text(waiver["because"]),
            text(waiver["until"] or "no end"),
            text(waiver["created_at"]),
        )
        for waiver in waivers
    ]
    return table(("gate", "who", "why", "until", "decided"), rows)


def _data(content: dict[str, Any], reports: dict[str, Report]) -> Iterator[str]:
    sides, audited = reports["split"].figures.get("rows", {}), reports["audit"].figures
    yield f"Version {code(content['data']['version'])} of {code(content['data']['table'])}."
    if sides:
        yield table(("side", "examples"), [(text(side), f"{count:,}") for side, count in sides.items()])
    origins = audited.get("origins", [])
    if origins:
        names = ("source", "collector", "annotator")
        rows = [
            (*(text(origin.get(name) or "not named") for name in names), f"{origin['rows']:,}")
            for origin in origins[:LISTED]
        ]
        yield table((*names, "rows"), rows)
        if (more := audited.get("origin_combinations", len(origins)) - len(rows)) > 0:
            yield f"And {more:,} more combinations of source, collector and annotator."


def _limits(subject: Subject, content: dict[str, Any], reports: dict[str, Report]) -> Iterator[str]:
    train, evaluated = reports["train"].figures, reports["evaluate"].figures
    settings = content["recipe"]["train"]
    yield (
        "It was measured on examples of the same data alone. Other subjects, other languages, harm and bias "
        "were not looked at unless a gate above says so."
    )
    if lost := train.get("dropped_overlong", 0) + train.get("truncated", 0):
        yield (
            f"{lost:,} training examples were longer than {settings.get('max_length', 0):,} tokens and were left out "
            "or cut."
        )
    if too_long := evaluated.get("too_long"):
        yield f"{too_long:,} test examples were longer than its context and were not measured."
    waived = sum(gate.verdict is Verdict.WAIVED for report in reports.values() for gate in report.gates)
    if waived:
        yield f"{waived} gates were waived: what they guard against was found, and accepted by the people named above."
    if origin := subject.base.get("origin"):
        yield f"The base's weights: {text(origin)}."
    if subject.form == "adapter":
        yield f"It fits the base with the fingerprint {code(short(content['train']['base_fingerprint']))} and no other."
    if not subject.base.get("licence"):
        yield "The base's licence is not on record: look it up before you pass this model on."
