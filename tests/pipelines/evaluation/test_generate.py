import pytest

from pipelines.evaluation.generate import EvaluationFailed, Plan, placement, run_candidates
from pipelines.models.candidate import Candidate
from pipelines.progress import Progress
from pipelines.recipe import Cluster

EXAMPLES = [
    [{"role": "user", "content": f"Describe number {n}."}, {"role": "assistant", "content": f"Number {n} it is."}]
    for n in range(5)
]


def candidates(tiny_model, adapter):
    return {
        "base": Candidate("base", str(tiny_model), None, "", "base"),
        "tuned": Candidate("tuned", str(tiny_model), str(adapter), "", "tuned"),
    }


@pytest.mark.cluster
@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_both_candidates_answer_and_are_scored_as_the_plain_model_would_be(
    ray_cluster, tiny_model, tiny_adapter, tiny_lora, engine
):
    import torch

    from pipelines.data.chat import encode, prompt_tokens
    from pipelines.models.load import load_tokenizer

    plan = Plan("float32", max_new_tokens=8, batch_size=4, engine=engine)
    too_long = [{"role": "user", "content": "x " * 2000}, {"role": "assistant", "content": "y"}]
    results = run_candidates(
        candidates(tiny_model, tiny_adapter), [*EXAMPLES, too_long], plan, Cluster(), Progress(quiet=True)
    )
    tokenizer = load_tokenizer(tiny_model)
    assert results.too_long == {5}
    assert results.tokens_per_second > 0
    for index, messages in enumerate(EXAMPLES):
        prompt = torch.tensor([prompt_tokens(tokenizer, messages)])
        answer = tiny_lora.generate(input_ids=prompt, max_new_tokens=8, do_sample=False)[0, prompt.shape[1] :]
        assert results.arms["tuned"].texts[index] == tokenizer.decode(answer, skip_special_tokens=True)
        encoded = encode(tokenizer, messages)
        labels = [token if wanted else -100 for token, wanted in zip(encoded.tokens, encoded.supervised, strict=True)]
        ids = torch.tensor([encoded.tokens])
        loss = tiny_lora(input_ids=ids, labels=torch.tensor([labels])).loss.item()
        total, count = results.arms["tuned"].losses[index]
        assert count == sum(encoded.supervised)
        assert total / count == pytest.approx(loss, rel=1e-4)
    assert results.arms["base"].texts != results.arms["tuned"].texts
    cut = results.arms["base"].truncated + results.arms["tuned"].truncated
    assert 0 < cut <= 10


@pytest.mark.cluster
def test_a_candidate_that_cannot_be_loaded_is_named(ray_cluster, tiny_model, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(EvaluationFailed, match=r"base and tuned cannot be loaded: .*adapter_model.safetensors"):
        run_candidates(candidates(tiny_model, broken), EXAMPLES, Plan("float32", 4, 4), Cluster(), Progress(quiet=True))


def test_generation_asks_for_gpus_where_training_would():
    assert placement(Cluster(), 0, 10) == (1, {"num_cpus": 1, "num_gpus": 0})
    assert placement(Cluster(), 2, 10) == (2, {"num_cpus": 1, "num_gpus": 1})
    assert placement(Cluster(), 4, 3)[0] == 3


def test_gpus_that_are_yet_to_start_are_asked_for():
    cluster = Cluster(use_gpu=True, num_workers=3, accelerator_type="A100")
    assert placement(cluster, 0, 10) == (3, {"num_cpus": 1, "num_gpus": 1, "accelerator_type": "A100"})


def test_gpus_that_the_recipe_leaves_alone_are_out_of_sight():
    count, options = placement(Cluster(use_gpu=False), 2, 10)
    assert (count, options["num_gpus"]) == (1, 0)
    assert options["runtime_env"]["env_vars"] == {"CUDA_VISIBLE_DEVICES": ""}
