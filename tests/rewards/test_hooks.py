"""Optional hooks: the base class adds nothing by itself, misspelt hooks are refused, other methods are not."""

import pytest

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.rewards import RewardBase, RewardError, TagTable, check_reward
from blip3o_grpo.rewards.hooks import HOOKS
from blip3o_grpo.rewards.spec import describe
from blip3o_grpo.validate import with_guard


class Plain(RewardBase):
    def __call__(self, batch):
        return [float(image.mean()) / 255 for image in batch.images]


def with_methods(base=Plain, **methods):
    return type("Mine", (base,), methods)


def some(*_, **__):
    return None


def test_the_base_class_alone_offers_nothing():
    spec = describe(Plain, "plain")
    assert spec.hooks == frozenset() and not spec.build().fits_reference and not spec.build().has_state
    assert (spec.kind, spec.tags, spec.is_guard, spec.expects_spread) == ("pointwise", None, False, True)
    check_reward(Plain)
    assert all(callable(vars(RewardBase)[hook].__get__(None, RewardBase)) for hook in HOOKS)


@pytest.mark.parametrize(
    ("misspelt", "near"),
    [
        ("aplicable", "applicable"),
        ("applicabel", "applicable"),
        ("is_applicable", "applicable"),
        ("Applicable", "applicable"),
        ("fit_refrence", "fit_reference"),
        ("fit_references", "fit_reference"),
        ("fit_ref", "fit_reference"),
        ("check_promt", "check_prompt"),
        ("check_prompts", "check_prompt"),
        ("check_option", "check_options"),
        ("load_state", "load_state_dict"),
        ("loadStateDict", "load_state_dict"),
        ("state_dic", "state_dict"),
        ("explain_scores", "explained_scores"),
        ("explained_score", "explained_scores"),
    ],
)
@pytest.mark.parametrize("wrap", [some, staticmethod(some)])
def test_a_misspelt_hook_is_refused_with_the_nearest_name(misspelt, near, wrap):
    with pytest.raises(RewardError, match=f"nothing uses {misspelt}; did you mean {near}?"):
        describe(with_methods(**{misspelt: wrap}), "mine")
    with pytest.raises(RewardError, match=near):  # without the base class, too
        describe(with_methods(base=object, __call__=Plain.__call__, **{misspelt: wrap}), "mine")


@pytest.mark.parametrize(
    ("misspelt", "value", "near"),
    [
        ("knd", "group", "kind"),
        ("kinds", "group", "kind"),
        ("tag", TagTable({}), "tags"),
        ("is_gaurd", True, "is_guard"),
        ("isGuard", True, "is_guard"),
        ("expect_spread", False, "expects_spread"),
    ],
)
def test_a_misspelt_attribute_is_refused_unless_the_reward_uses_it(misspelt, value, near):
    def score(images, prompts, metadata):
        return [1.0] * len(images)

    setattr(score, misspelt, value)
    with pytest.raises(RewardError, match=f"nothing uses {misspelt}; did you mean {near}?"):
        describe(score, "mine")
    with pytest.raises(RewardError, match=f"nothing uses {misspelt}; did you mean {near}?"):
        describe(with_methods(**{misspelt: value}), "mine")
    describe(with_methods(**{misspelt: value, "_own": eval(f"lambda self: self.{misspelt}")}), "mine")


@pytest.mark.parametrize(
    "helper",
    ["explain", "score", "scores", "state", "check", "applies", "apply", "reference", "fit", "load", "load_model"]
    + ["prompt", "options", "checkpoint", "check_image", "check_output", "load_statistics", "save_state", "read"],
)
def test_helpers_of_other_names_are_no_hooks(helper):
    describe(with_methods(**{helper: some}), "mine")


def test_a_helper_that_the_class_calls_itself_is_none_either():
    class Mine(Plain):
        def check_prompts(self, prompts):
            return prompts

        def __call__(self, batch):
            assert self.check_prompts(batch.prompts)
            return super().__call__(batch)

    describe(Mine, "mine")
    describe(with_methods(applicable=staticmethod(some), is_applicable=some), "mine")  # the hook is there as well


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "groups"}, "unknown kind 'groups'; did you mean 'group'"),
        ({"tags": ("a", "b")}, "`tags` must be a TagTable, not tuple"),
        ({"applicable": some}, "applicable is called before there is an instance; make it a @staticmethod"),
        ({"state_dict": some}, "has state_dict but no load_state_dict"),
        ({"fit_reference": some}, "has fit_reference, so it needs state_dict and load_state_dict too"),
    ],
)
def test_declarations_that_cannot_work_are_refused(values, message):
    with pytest.raises(RewardError, match=message):
        describe(with_methods(**values), "mine")


def test_what_a_guard_declares_is_kept_with_the_run(tmp_path):
    (tmp_path / "mine.py").write_text(
        "class Guard:\n    is_guard = True\n    def __call__(self, batch):\n        return [1.0] * len(batch)\n"
    )
    section = RewardSection(name="guard", type="mine:Guard", folder=str(tmp_path))
    assert with_guard(section).guard is True
    assert with_guard(section.model_copy(update={"guard": False})).guard is False
    assert with_guard(RewardSection(name="ocr")).guard is None


def test_tags_have_titles_in_order_and_others_their_own():
    table = TagTable({"two": "Two things"}, key="level")
    assert table.tag({"level": "two"}) == "two" and table.tag({}) == "other"
    assert table.title("two") == "Two things" and table.title("long_scene") == "Long scene"


def test_a_function_declares_what_a_class_does():
    def score(images, prompts, metadata):
        return [1.0] * len(images)

    score.tags, score.is_guard, score.expects_spread = TagTable({}), True, False
    spec = describe(score, "mine")
    assert (spec.kind, spec.tags, spec.is_guard, spec.expects_spread) == ("pointwise", TagTable({}), True, False)
    score.tags = "colour"
    with pytest.raises(RewardError, match="its `tags` must be a TagTable, not str"):
        describe(score, "mine")
