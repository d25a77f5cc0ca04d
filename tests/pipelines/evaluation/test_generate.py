import pytest

from pipelines.evaluation.generate import EvaluationFailed, Plan, run_candidates
from pipelines.models.candidate import Candidate
from pipelines.progress import Progress

pytestmark = pytest.mark.cluster

EXAMPLES = [
    [{"role": "user", "content": f"Describe number {n}."}, {"role": "assistant", "content": f"Number {n} it is."}]
    for n in range(5)
]


def candidates(tiny_model, adapter):
    return {
        "base": Candidate("base", str(tiny_model), None, "", "base"),
        "tuned": Candidate("tuned", str(tiny_model), str(adapter), "", "tuned"),
    }


def test_both_candidates_answer_and_are_scored_as_the_plain_model_would_be(
    ray_cluster, tiny_model, tiny_adapter, tiny_lora
):
    import torch

    from pipelines.data.chat import encode, prompt_tokens
    from pipelines.models.load import load_tokenizer

    plan = Plan("float32", max_new_tokens=8, batch_size=4)
    too_long = [{"role": "user", "content": "x " * 2000}, {"role": "assistant", "content": "y"}]
    results = run_candidates(candidates(tiny_model, tiny_adapter), [*EXAMPLES, too_long], plan, Progress(quiet=True))
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


def test_a_candidate_that_cannot_be_loaded_is_named(ray_cluster, tiny_model, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(EvaluationFailed, match=r"base and tuned cannot be loaded: .*adapter_model.safetensors"):
        run_candidates(candidates(tiny_model, broken), EXAMPLES, Plan("float32", 4, 4), Progress(quiet=True))
