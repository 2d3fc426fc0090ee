"""Seeds depend on names only, differ where they should, and follow vLLM's rule for the members of a group."""

from blip3o_grpo.rollout.seeds import completion_seed, noise_seed


def test_members_count_up_from_the_group_seed():
    base = completion_seed(0, 3, "p", 0)
    assert [completion_seed(0, 3, "p", member) - base for member in range(4)] == [0, 1, 2, 3]


def test_every_name_matters():
    names = [(0, 3, "p"), (1, 3, "p"), (0, 4, "p"), (0, 3, "q"), (0, "3", "p"), (0, "eval", "p"), (3, 0, "p")]
    assert len({completion_seed(*name, 0) for name in names}) == len(names)
    assert len({noise_seed(*name, 0, "shared") for name in names}) == len(names)
    assert completion_seed(0, 3, "p", 0) != noise_seed(0, 3, "p", 0, "independent")


def test_noise_is_shared_or_independent():
    shared = {noise_seed(0, 1, "p", member, "shared") for member in range(4)}
    assert len(shared) == 1
    independent = [noise_seed(0, 1, "p", member, "independent") for member in range(4)]
    assert [seed - independent[0] for seed in independent] == [0, 1, 2, 3]


def test_seeds_are_the_same_in_every_process_and_version_and_fit_json():
    """A run that is resumed after an update goes on with the images it would have drawn."""
    assert completion_seed(0, 2, "p", 0) == 178285248473183
    assert noise_seed(0, 2, "p", 0, "shared") == 198179275329646
    assert noise_seed(0, "eval", "p", 0, "shared") == 35637660871644
    assert completion_seed(2**31 - 1, 10**6, "p" * 100, 10**4) < 2**53
