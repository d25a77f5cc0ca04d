from pipelines.recipe import Train
from pipelines.search.comparison import compare, value_of
from pipelines.search.history import fold
from tests.pipelines.search.planted import Story, halving, plan


def folded(story):
    return fold(story.sweep, story.events)


def test_losses_are_compared_at_one_step_that_enough_trials_reached():
    compared = compare(folded(halving()), fewest=6)
    assert compared.step == 16 and len(compared.trials) == 6
    assert compared.losses == tuple(folded(halving()).trials[name].loss_at(16) for name in compared.trials)
    assert compare(folded(halving())).step == 8
    assert [axis.key for axis in compared.axes] == ["learning_rate", "warmup_steps", "lora_r"]


def test_where_fewer_trials_began_all_of_them_are_compared():
    story = halving(trials=3)
    assert compare(folded(story)).step == 8
    assert len(compare(folded(story)).trials) == 3


def test_clones_and_other_seeds_are_not_compared_by_their_values():
    story = halving()
    story.add("proposed", "trial-13", values={"lora_r": 8}, origin="clone", parent="trial-2")
    story.rung("trial-13", 8, 0.1)
    story.add("proposed", "trial-14", values={"lora_r": 8}, origin="seed", parent="trial-2", seed=18)
    story.rung("trial-14", 8, 0.1)
    assert compare(folded(story)).trials == compare(folded(halving())).trials


def test_the_recipes_own_values_are_read_from_its_train_section_where_the_plan_has_it():
    axes = {axis.key: axis for axis in compare(folded(halving())).axes}
    assert axes["lora_r"].values[0] is None
    train = Train(lora_r=16, learning_rate=3e-4).model_dump(mode="json")
    axes = {axis.key: axis for axis in compare(folded(halving(train=train))).axes}
    assert axes["lora_r"].values[0] == 16 and axes["learning_rate"].values[0] == 3e-4


def test_a_key_that_means_nothing_beside_the_others_has_no_value():
    space = {"lora_r": {"choice": [8, 16], "when": {"method": ["lora"]}}, "method": {"choice": ["lora", "full"]}}
    story = Story()
    story.add("opened", **plan(space=space, train=Train().model_dump(mode="json")))
    story.add("proposed", "trial-1", values={"method": "full"}, origin="search")
    standing = folded(story)
    assert value_of(standing, standing.trials["trial-1"], "lora_r") is None


def test_a_loss_that_is_no_number_is_compared_with_none():
    story = Story()
    story.add("opened", **plan())
    for name, loss in (("trial-1", float("nan")), ("trial-2", 2.0)):
        story.add("proposed", name, values={"lora_r": 8}, origin="search")
        story.rung(name, 8, loss)
    assert compare(folded(story)).trials == ("trial-2",)


def test_a_sweep_that_has_only_opened_compares_nothing():
    story = Story()
    story.add("opened", **plan())
    assert compare(folded(story)).trials == () and compare(folded(story)).step == 0
