import json

import pytest

from cluster.errors import UserError
from pipelines.data.leaks.benchmark_sets import benchmark_items, benchmarks_fingerprint
from pipelines.recipe_file import load_recipe


def written(folder, name, rows):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_conversation_gives_its_whole_text_and_its_prompt(tmp_path):
    path = written(tmp_path, "quiz.jsonl", [{"prompt": "Who?", "completion": "Nobody.", "system": "Be brief."}])
    assert list(benchmark_items(path)) == [("quiz.jsonl:1", "Who?\nNobody."), ("quiz.jsonl:1 (prompt)", "Who?")]


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Who?", "id": 7},
        {"text": "Who?"},
        {"prompt": "Who?"},
        {"prompt": ["Who?"]},
        {"messages": [{"role": "user", "content": "Who?"}]},
        {"text": "", "question": "Who?", "choices": ["a", "b"]},
    ],
)
def test_a_row_that_is_no_conversation_gives_its_text(tmp_path, row):
    assert [text for _, text in benchmark_items((written(tmp_path, "set.jsonl", [row]),))] == ["Who?"]


def test_csv_and_several_sets_are_read_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b.csv").write_text("question,answer\nWho?,Nobody\n")
    paths = (str(tmp_path / "b.csv"), written(tmp_path, "a.jsonl", [{"text": "What?"}]))
    assert [(name.partition(":")[0], text) for name, text in benchmark_items(paths)] == [
        ("a.jsonl", "What?"),
        ("b.csv", "Who?"),
    ]


def test_a_row_without_text_is_an_error_with_its_place(tmp_path):
    path = written(tmp_path, "set.jsonl", [{"text": "What?"}, {"number": 3}])
    with pytest.raises(UserError, match=r"set.jsonl:2: no conversation and no text; the columns are number"):
        list(benchmark_items(path))


def test_the_fingerprint_is_of_the_contents(tmp_path):
    assert benchmarks_fingerprint(()) is None
    path = written(tmp_path, "set.jsonl", [{"text": "What?"}])
    before = benchmarks_fingerprint(path)
    assert before == benchmarks_fingerprint((path,))
    written(tmp_path, "set.jsonl", [{"text": "Who?"}])
    assert benchmarks_fingerprint(path) != before


def test_the_paths_of_a_recipe_are_beside_it(recipe_file, tmp_path):
    written(tmp_path, "quiz.jsonl", [{"text": "What?"}])
    recipe = load_recipe(recipe_file(split={"benchmarks": "quiz.jsonl"}))
    assert [text for _, text in benchmark_items(recipe.split.benchmarks)] == ["What?"]
