"""An encoder-decoder learns: its bins, its loss, and the loop in this process with DeepSpeed."""

import json
import random
from pathlib import Path

import pytest
import torch

from cluster.errors import UserError
from pipelines.models.load import load_model, load_tokenizer
from pipelines.progress import Progress
from pipelines.recipe import Cluster, Train
from pipelines.training.bins import PADDING_BIN, BinFile, padding_share
from pipelines.training.seq2seq_loss import Seq2SeqLoss
from pipelines.training.stored_bins import store_bins
from tests.pipelines.training.conftest import build_bins, conversations, job_maker
from tests.pipelines.training.on_disk import on_disk


@pytest.fixture(scope="module")
def tokenizer(tiny_t5):
    return load_tokenizer(tiny_t5)


@pytest.fixture
def bins(workspace, tiny_t5):
    """The bins of twenty conversations, stored."""
    sides = on_disk(train=conversations(20), validation=conversations(4, seed=1))
    return store_bins(workspace, "b" * 12, tiny_t5, sides, Train(max_length=128), Progress(quiet=True))


@pytest.fixture
def file(workspace, bins):
    return BinFile(workspace.fetch(bins.address) / "train.arrow")


def test_packing_does_not_apply_and_that_is_said(workspace, tiny_t5, bins, capsys):
    assert bins.train.seq2seq and bins.train.bins == bins.train.kept == 20
    sides = on_disk(train=conversations(2), validation=conversations(2, seed=1))
    store_bins(workspace, "c" * 12, tiny_t5, sides, Train(max_length=128), Progress())
    assert "packing does not apply" in capsys.readouterr().err


def test_earlier_answers_are_read_and_counted(tokenizer):
    turns = [{"role": "user", "content": "list"}, {"role": "assistant", "content": "a"}]
    rows = [("one", json.dumps(turns)), ("two", json.dumps(turns * 2))]
    _, figures, _ = build_bins(tokenizer, rows, Train(max_length=128))
    assert figures.earlier_answers == 1 and figures.samples["earlier_answers"] == ["two"]


def test_a_cut_pair_loses_its_answers_end_and_one_without_any_answer_left_is_dropped(tokenizer):
    turns = [{"role": "user", "content": "list"}, {"role": "assistant", "content": "name " * 30}]
    long = [{"role": "user", "content": "list " * 60}, {"role": "assistant", "content": "name"}]
    rows = [("cut", json.dumps(turns)), ("gone", json.dumps(long))]
    table, figures, _ = build_bins(tokenizer, rows, Train(max_length=32, on_overlong="truncate"))
    assert (figures.truncated, figures.dropped, figures.unended) == (1, 1, 1)
    assert len(table["tokens"][0]) == 32 and tokenizer.eos_token_id not in table["tokens"][0].as_py()[-2:]


def test_the_loss_is_transformers_own_summed_over_target_tokens(tiny_t5, file):
    model = load_model(tiny_t5, "float32")
    rows = [file.read(number) for number in range(6)]
    with torch.no_grad():
        together = float(Seq2SeqLoss(model)(*Seq2SeqLoss.inputs_of([*rows, PADDING_BIN])))
        alone = 0.0
        for row in rows:
            size = sum(row.supervised)
            output = model(input_ids=torch.tensor([row.tokens[:-size]]), labels=torch.tensor([row.tokens[-size:]]))
            alone += float(output.loss) * size
    assert together == pytest.approx(alone, rel=1e-5)


def test_a_batch_of_padding_runs_through_every_layer_and_weighs_nothing(tiny_t5):
    model = load_model(tiny_t5, "float32")
    loss = Seq2SeqLoss(model)(*Seq2SeqLoss.inputs_of([PADDING_BIN]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_sources_and_targets_are_padded_each_to_their_own_longest(file):
    from pipelines.data.packing import shuffled

    assert padding_share(file, Train(global_batch_size=4), 3, 1, seq2seq=True) == 0
    places = 0
    for start in range(0, 20, 4):
        rows = [file.read(number) for number in shuffled(20, 3, 0)[start : start + 4]]
        inputs = Seq2SeqLoss.inputs_of(rows)
        places += inputs[0].numel() + inputs[2].numel()
    wide = Train(global_batch_size=4, per_device_train_batch_size=4)
    assert padding_share(file, wide, 3, 1, seq2seq=True) == pytest.approx(1 - sum(file.sizes) / places)


def check(folder, engine="transformers", **train):
    from pipelines.models.load import BaseFiles
    from pipelines.training.check import check_recipe

    check_recipe(Train(**train), Cluster(engine=engine), BaseFiles("tiny", folder, "", "local", ""))


def test_what_cannot_be_trained_is_told_before_a_worker_starts(tiny_t5, tmp_path):
    check(tiny_t5, max_length=8192, target_modules=("q", "v", "wo"))
    with pytest.raises(UserError, match="vllm serves no encoder-decoders, and tiny is one"):
        check(tiny_t5, "vllm", max_length=8192)
    with pytest.raises(UserError, match="beyond the 8192 tokens"):
        check(tiny_t5, max_length=8193)
    with pytest.raises(UserError, match="has no q_proj") as refused:
        check(tiny_t5, target_modules=("q_proj",))
    assert "wi" in refused.value.remedy
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bart", "is_encoder_decoder": True}))
    with pytest.raises(UserError, match="type bart"):
        check(tmp_path)


def answered(count, seed):
    """Conversations whose answer is their first word: something that a tiny model learns."""
    draw = random.Random(seed)
    words = ["list", "map", "tree", "file"]
    chosen = [draw.choices(words, k=3) for _ in range(count)]
    return [
        (
            f"example-{number}",
            json.dumps(
                [{"role": "user", "content": " ".join(one)}, {"role": "assistant", "content": " ".join(one[:1])}]
            ),
        )
        for number, one in enumerate(chosen)
    ]


@pytest.mark.cluster
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(("method", "stage", "rate"), [("lora", 0, 2e-2), ("full", 2, 5e-3), ("lora", 3, 2e-2)])
def test_training_lowers_the_loss_and_what_goes_out_has_it(run, workspace, tiny_t5, method, stage, rate):
    from peft import PeftModel

    settings = {
        "method": method,
        "learning_rate": rate,
        "deepspeed": {"stage": stage},
        "per_device_train_batch_size": 4,
    }
    settings |= {"max_steps": 24, "eval_steps": 12, "gradient_checkpointing": stage == 2}
    rows = {"train": answered(96, 0), "validation": answered(24, 1)}
    job = job_maker(workspace, tiny_t5)(f"seq2seq-{method}-{stage}", settings, rows)
    outcome, _ = run(job)

    assert outcome["status"] == "finished"
    assert outcome["last_validation_loss"] < 0.8 * outcome["baseline_loss"]
    # All target tokens and no others: a word, and the end token.
    side = BinFile(Path(job.bins) / "validation.arrow")
    folder = outcome["model"]
    if method == "lora":
        assert json.loads(Path(folder, "adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"
        model = PeftModel.from_pretrained(load_model(tiny_t5, "float32"), folder).eval()
    else:
        model = load_model(folder, "float32")
        assert load_tokenizer(folder).is_encoder_decoder
    with torch.no_grad():
        losses = [float(Seq2SeqLoss(model)(*Seq2SeqLoss.inputs_of([side.read(n)]))) for n in range(len(side))]
    kept = min(entry["validation_loss"] for entry in outcome["history"])
    assert sum(losses) / sum(side.taught) == pytest.approx(kept, rel=1e-3)
