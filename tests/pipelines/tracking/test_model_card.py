"""The model card: what it tells, and that nothing in the data becomes markup."""

from datetime import UTC, datetime

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from pipelines.gates import Gate, Report, Verdict, Waiver
from pipelines.recipe_file import load_recipe
from pipelines.tracking.lineage import lineage
from pipelines.tracking.model_card import Subject, model_card

HOSTILE = "<img src=x onerror=alert(1)> ![b](http://example.com/b.png) | `x` \x1b[31m\n\n# me\n---\n"


def report(stage, figures=None, produced=None, **changes):
    values = {
        "stage": stage,
        "recipe_name": "small",
        "gates": (Gate(gate=f"{stage}.rule", verdict=Verdict.OPEN, evidence=f"{stage} holds."),),
        "figures": figures or {},
        "fingerprints": {stage: "f"},
        "produced": produced or {},
        "recipe": {},
        "seconds": 1,
        "created_at": datetime(2030, 1, 1, tzinfo=UTC),
    }
    return Report(**(values | changes))


EVALUATED = {
    "primary": "rougeL",
    "examples": 64,
    "groups": 12,
    "method": "paired BCa bootstrap by group, 2000 resamples, 95 %",
    "candidates": {"base": {"loss": 3.38, "rougeL": 0.173}, "tuned": {"loss": 2.49, "rougeL": 0.264}},
    "intervals": {
        "base": {"loss": {"low": 3.2, "high": 3.5, "n": 64}, "rougeL": {"low": 0.15, "high": 0.19, "n": 64}},
        "tuned": {"loss": {"low": 2.3, "high": 2.6, "n": 64}, "rougeL": {"low": 0.23, "high": 0.29, "n": 64}},
    },
    "comparisons": {
        "loss": {"difference": -0.89, "low": -1.01, "high": -0.77, "n": 64},
        "rougeL": {"difference": 0.091, "low": 0.051, "high": 0.131, "n": 64},
    },
    "too_long": 3,
}


@pytest.fixture
def reports():
    audited = {"origins": [{"source": "tickets", "collector": None, "annotator": "jane", "rows": 900}]}
    trained = {
        "examples": 800,
        "dropped_overlong": 7,
        "truncated": 0,
        "resolved_train": {"method": "lora", "learning_rate": 0.0005, "max_length": 512},
        "winner": {},
    }
    made = {
        "model_fingerprint": "a" * 64,
        "base": "owner/base-135M",
        "base_revision": "deadbeef",
        "base_fingerprint": "b" * 64,
        "chat_template": "c" * 64,
        "method": "lora",
    }
    return {
        "audit": report("audit", audited | {"origin_combinations": 4}),
        "split": report(
            "split",
            {"rows": {"train": 800, "validation": 100, "test": 100}},
            {"table": "/splits/small", "version": "3", "split": "d" * 64},
        ),
        "train": report("train", trained, made),
        "evaluate": report("evaluate", EVALUATED),
    }


@pytest.fixture
def card(recipe_file, reports):
    """`card(form="adapter", base={...}, ...)` -> the card of these reports."""

    def make(form="adapter", base=None, seq2seq=False, check="Byte for byte."):
        content = lineage(load_recipe(recipe_file()), reports)
        known = {"revision": "deadbeef", "licence": "Apache-2.0"} if base is None else base
        subject = Subject(form, "small-q8_0.gguf" if form == "gguf" else "", known, seq2seq, check)
        return model_card(subject, content, reports)

    return make


def test_the_hub_reads_licence_base_and_figures(card):
    data = ModelCard(card()).data
    assert (data.license, data.base_model, data.library_name) == ("apache-2.0", "owner/base-135M", "peft")
    assert data.pipeline_tag == "text-generation" and "lora" in data.tags
    found = {result.metric_name: result.metric_value for result in data.eval_results}
    assert found == {"loss (test side)": 2.49, "rougeL (test side)": 0.264}
    assert data.eval_results[0].dataset_revision == "d" * 64


@pytest.mark.parametrize(
    ("form", "library", "relation", "loads"),
    [
        ("adapter", "peft", "adapter", "PeftModel.from_pretrained(base, folder)"),
        ("merged", "transformers", "finetune", "AutoModelForCausalLM.from_pretrained(folder"),
        ("gguf", "gguf", "quantized", "llama-server --model small-q8_0.gguf"),
    ],
)
def test_each_form_says_what_it_is_and_how_it_is_loaded(card, form, library, relation, loads):
    text = card(form)
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["library_name"], head["base_model_relation"]) == (library, relation)
    assert loads in text and 'model="small-tuned"' in text


def test_the_snippets_are_python_that_compiles(card):
    for form in ("adapter", "merged"):
        for token in MarkdownIt().parse(card(form)):
            if token.type == "fence" and token.info == "python":
                compile(token.content, "card", "exec")


def test_an_encoder_and_decoder_is_loaded_as_one(card):
    text = card("merged", seq2seq=True)
    assert "AutoModelForSeq2SeqLM" in text and "pipeline_tag: text2text-generation" in text


def test_the_body_tells_data_sizes_provenance_figures_gates_and_the_template(card):
    text = card()
    for told in (
        "on 800 examples",
        f"version `3`, `{'d' * 64}`",
        f"| chat template | `{'c' * 64}` |",
        "| train | 800 |",
        "| tickets | not named | jane | 900 |",
        "And 3 more combinations",
        "| rougeL (primary) | 0.173 \\[0.15, 0.19\\] | 0.264 \\[0.23, 0.29\\] | 0.091 \\[0.051, 0.131\\] |",
        "On 64 test examples in 12 groups; paired BCa bootstrap by group",
        "| `split.rule` | open | split holds. |",
        "None: no gate was passed by a person's decision.",
        "learning_rate: 0.0005",
        "7 training examples were longer than 512 tokens",
        "3 test examples were longer",
    ):
        assert told in text, told


def test_a_waiver_stands_with_who_why_and_until(card, reports):
    closed = report("audit", gates=(Gate(gate="audit.rule", verdict=Verdict.CLOSED, evidence="900 of 1,000."),))
    waiver = Waiver(
        gate="audit.rule",
        report=closed.key,
        by="Ada",
        because="a pilot",
        until=datetime(2099, 12, 31, tzinfo=UTC),
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    reports["audit"] = closed.with_waivers((waiver,), datetime(2030, 1, 2, tzinfo=UTC))
    text = card()
    assert "| `audit.rule` | Ada | a pilot | 2099-12-31T00:00:00Z | 2030-01-01T00:00:00Z |" in text
    assert "1 gates were waived" in text and "| `audit.rule` | waived |" in text


def test_a_folder_is_no_base_of_the_hub_and_an_unknown_licence_is_said(card, reports):
    reports["train"] = reports["train"].model_copy(
        update={"produced": reports["train"].produced | {"base": "/models/base"}}
    )
    text = card(base={})
    head = yaml.safe_load(text.split("---\n")[1])
    assert "base_model" not in head and "license" not in head
    assert "licence is not on record" in text


def test_one_group_alone_has_no_interval(card, reports):
    bare = EVALUATED | {"groups": 1, "intervals": {}, "comparisons": {}}
    reports["evaluate"] = report("evaluate", bare)
    text = card()
    assert "| rougeL (primary) | 0.173 | 0.264 |  |" in text and "no interval" in text


def test_nothing_in_the_data_becomes_markup(card, reports):
    origins = [{"source": HOSTILE, "collector": HOSTILE, "annotator": HOSTILE, "rows": 1}]
    gate = Gate(gate="audit.rule", verdict=Verdict.OPEN, evidence=HOSTILE)
    reports["audit"] = report("audit", {"origins": origins}, gates=(gate,))
    reports["train"] = reports["train"].model_copy(
        update={
            "figures": reports["train"].figures
            | {"resolved_train": {"method": "lora", "note": HOSTILE + "```\n</code></pre><script>"}}
        }
    )
    text = card(base={"revision": HOSTILE, "origin": HOSTILE, "licence": HOSTILE}, check=HOSTILE)

    body = text.split("---\n", 2)[2]
    tags = {
        token.tag
        for outer in MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
        for token in (outer, *(outer.children or []))
    }
    assert "img" not in tags and "a" not in tags
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    assert "<img" not in html and "<script" not in html and "\x1b" not in text and html.count("<h1>") == 1
    assert set(yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))) >= {"license", "model-index"}
