"""Recipe files: what is read, what is refused, and in which words."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import UserError
from pipelines.recipe_file import apply_override, dump_recipe, load_recipe, parse_yaml
from pipelines.recipe_template import commented_recipe


def problem_of(path, *overrides):
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.0e-5", "0.00001", "+1e-5", "10e-6"])
def test_a_learning_rate_is_a_number_however_it_is_written(recipe_file, text):
    path = recipe_file()
    path.write_text(path.read_text() + f"train: {{learning_rate: {text}}}\n")
    assert load_recipe(path).train.learning_rate == pytest.approx(1e-5)


def test_an_unknown_key_is_refused_with_the_nearest_known_one(recipe_file):
    message = problem_of(recipe_file(train={"learning_rat": 1e-4}))
    assert "train.learning_rat: unknown key; did you mean learning_rate?" in message


def test_an_unknown_section_and_a_nested_key_are_refused_too(recipe_file):
    message = problem_of(
        recipe_file(trian={}, train={"deepspeed": {"stge": 2}}, models=[{"base": "a/b", "revison": "x"}])
    )
    assert "trian: unknown key; did you mean train?" in message
    assert "train.deepspeed.stge: unknown key; did you mean stage?" in message
    assert "models.0.revison: unknown key; did you mean revision?" in message


def test_all_problems_come_in_one_message(recipe_file):
    message = problem_of(
        recipe_file(name="Not A Name", seed=-1, train={"learning_rate": 0, "method": "ia3"}, split={"train": 0.5})
    )
    assert "5 problems" in message
    for place in ("name:", "seed:", "train.learning_rate:", "train.method:", "split:"):
        assert f"  - {place}" in message


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object:os.system {}",
        "name: !!python/object/apply:os.system ['touch /tmp/never']",
        "name: !!python/name:os.system",
        "name: !!binary aGk=",
    ],
)
def test_tags_that_build_objects_are_refused(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert "recipe.yaml" in problem_of(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a recipe is a mapping"),
        ("- a\n- b", "a recipe is a mapping"),
        ("just text", "a recipe is a mapping"),
        ("name: [unclosed", "line 1"),
        ("name: a\nname: b", "line 2, column 1: name stands twice"),
        ("a: {b: 1, b: 2}", "b stands twice"),
        ("? [a]\n: 1", "a key must be text"),
        ("? !!set {a}\n: 1", "a key must be text"),
        ("\tname: a", "line 1"),
        ("[" * 20_000, "nested too deeply"),
        ("name: \x00", "special characters"),
        ("name: &a *a", "line 1"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_place(tmp_path, text, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert words in problem_of(path)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    assert "no such recipe" in problem_of(tmp_path / "nowhere.yaml")
    assert "no such recipe" in problem_of(tmp_path)


def test_a_byte_order_mark_is_read_and_other_encodings_are_refused(recipe_file):
    path = recipe_file()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_recipe(path).name == "small"
    path.write_bytes("name: café".encode("latin-1"))
    assert "not UTF-8 at byte 9" in problem_of(path)


def test_relative_sources_are_taken_from_the_recipes_folder(recipe_file, tmp_path):
    sources = ["data/*.jsonl", "package://python#docstrings", "s3://bucket/x.jsonl", "/abs/x.csv"]
    assert load_recipe(recipe_file(dataset={"source": sources})).dataset.source == (
        f"{tmp_path}/data/*.jsonl",
        "package://python#docstrings",
        "s3://bucket/x.jsonl",
        "/abs/x.csv",
    )


def test_a_folder_beside_the_recipe_may_be_the_base(recipe_file, tmp_path):
    (tmp_path / "weights").mkdir()
    assert load_recipe(recipe_file(models=[{"base": "weights"}])).base.base == str(tmp_path / "weights")
    assert load_recipe(recipe_file(models=[{"base": "owner/weights"}])).base.base == "owner/weights"


def test_overrides_reach_any_key_and_make_sections(recipe_file):
    recipe = load_recipe(
        recipe_file(train={"method": "full"}),
        ["train.learning_rate=2e-5", "train.deepspeed.stage=3", "evaluate.primary=bleu", "train.max_steps=null"],
    )
    assert (recipe.train.method, recipe.train.learning_rate, recipe.train.deepspeed.stage) == ("full", 2e-5, 3)
    assert recipe.evaluate.primary == "bleu"
    assert recipe.train.max_steps is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.learning_rate", "is no override"),
        ("=3", "is no override"),
        ("train.learning_rate=[", "line 1"),
        ("name.x=3", "name.x: name is not a section"),
        ("train.learning_rat=1", "did you mean learning_rate?"),
        ("train.learning_rate=!!python/name:os.system", "could not determine a constructor"),
        ("seed=many", "seed:"),
    ],
)
def test_a_wrong_override_is_refused_by_name(recipe_file, override, words):
    assert words in problem_of(recipe_file(), override)


def test_a_heading_whose_keys_are_commented_out_has_its_defaults(recipe_file):
    path = recipe_file()
    path.write_text(path.read_text() + "train:\n  # learning_rate: 1e-4\n")
    assert load_recipe(path).train.method == "lora"


def test_a_resolved_recipe_loads_to_itself(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file(sweep={"space": {"lora_r": {"choice": [8, 16]}}}, train={"target_modules": ["q"]}))
    copy = tmp_path / "elsewhere.yaml"
    copy.write_text(dump_recipe(recipe))
    assert load_recipe(copy) == recipe


def test_what_is_switched_off_stays_so_when_a_recipe_is_written(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file(split={"containment": None}, audit={"anomalies": {"length": None}}))
    copy = tmp_path / "elsewhere.yaml"
    copy.write_text(dump_recipe(recipe))
    assert load_recipe(copy) == recipe and recipe.split.containment is None


def test_models_beside_the_recipe_are_found_from_everywhere(recipe_file, tmp_path):
    for name in ("base", "meaning"):
        (tmp_path / name).mkdir()
    recipe = load_recipe(recipe_file(models=[{"base": "base"}], audit={"semantic": {"model": "meaning"}}))
    assert (recipe.base.base, recipe.audit.semantic.model) == (str(tmp_path / "base"), str(tmp_path / "meaning"))
    hub = load_recipe(recipe_file(audit={"semantic": {"model": "owner/model"}}))
    assert hub.audit.semantic.model == "owner/model"


def test_the_commented_recipe_loads_and_holds_every_key_with_its_default(tmp_path, recipe_file):
    path = tmp_path / "written.yaml"
    text = commented_recipe("small", "examples.jsonl", "HuggingFaceTB/SmolLM2-135M-Instruct")
    path.write_text(text)
    assert load_recipe(path) == load_recipe(recipe_file(split={}))
    assert "# Longest generated answer, in tokens.\n  max_new_tokens: 256" in text


def test_its_commented_out_sweep_is_valid_once_uncommented(tmp_path):
    text = commented_recipe("small", "x", "a/b")
    start = text.index("# sweep:")
    end = text.index("\n\n", start)
    block = "\n".join(line.removeprefix("# ") for line in text[start:end].splitlines())
    path = tmp_path / "recipe.yaml"
    path.write_text(text[:start] + block + text[end:])
    assert set(load_recipe(path).sweep.space) == {"learning_rate", "lora_r"}


scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text("abcdefghij_", min_size=1), scalars | st.text("abc 123-é", max_size=9), max_size=4))
def test_safe_yaml_means_the_same_to_us(content):
    assert parse_yaml(yaml.safe_dump(content, allow_unicode=True)) == content


@given(st.integers(-(10**9), 10**9), st.sampled_from(["a", "a.b", "a.b.c"]))
def test_an_override_sets_exactly_its_key(value, key):
    content = {"other": 1}
    apply_override(content, f"{key}={value}")
    place = content
    for part in key.split("."):
        place = place[part]
    assert place == value and content["other"] == 1


def test_a_swept_value_is_held_against_the_recipes_own_train_section(recipe_file):
    space = {"per_device_train_batch_size": {"choice": [32]}}
    assert load_recipe(recipe_file(train={"global_batch_size": 64}, sweep={"space": space})).sweep
    message = problem_of(recipe_file(train={"global_batch_size": 16}, sweep={"space": space}))
    assert "sweep.space.per_device_train_batch_size: 32 does not fit train" in message


@pytest.mark.parametrize(
    ("domain", "problem"),
    [
        ({"lora_r": {"choice": [8, 0]}}, "sweep.space.lora_r: 0 does not fit train: input should be greater than or"),
        ({"learning_rate": {"uniform": [-1, 1]}}, "sweep.space.learning_rate: -1 does not fit train"),
    ],
)
def test_a_swept_value_that_train_refuses_is_refused_at_once(recipe_file, domain, problem):
    assert problem in problem_of(recipe_file(sweep={"space": domain})).replace("Input", "input")


def test_yes_is_no_number(recipe_file):
    message = problem_of(recipe_file(), "train.learning_rate=yes", "train.packing=no")
    assert "train.learning_rate: must not be yes" in message
    assert "packing" not in message


def test_yaml_merge_keys_work(recipe_file):
    path = recipe_file()
    path.write_text(
        path.read_text() + "train: &a {max_length: 512}\nserve: {<<: {max_new_tokens: 64, max_batch_size: 4}}\n"
    )
    assert load_recipe(path).serve.max_new_tokens == 64


def test_keys_are_switched_off_by_the_bare_word_that_yaml_reads_as_false(recipe_file, tmp_path):
    assert load_recipe(recipe_file(), ["serve.keys=off"]).serve.keys == "off"
    path = recipe_file()
    path.write_text(path.read_text() + "serve: {keys: off}\n")
    assert load_recipe(path).serve.keys == "off"
    assert load_recipe(path, ["serve.keys=required"]).serve.keys == "required"
    assert "serve.keys" in problem_of(path, "serve.keys=yes") and "serve.keys" in problem_of(path, "serve.keys=on")
