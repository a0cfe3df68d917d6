import numpy as np
import pytest

from melody_diffusers.evaluation.plan_runs import chance_of_run, longest_run


def by_hand(tokens, plans) -> int:
    return max(
        (
            n
            for plan in plans
            for i in range(len(tokens))
            for n in range(len(tokens) - i + 1)
            if stands(tokens[i : i + n], plan)
        ),
        default=0,
    )


def stands(run, plan) -> bool:
    return any(list(plan[i : i + len(run)]) == list(run) for i in range(len(plan) - len(run) + 1))


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_run_is_that_of_trying_all(seed):
    random = np.random.default_rng(seed)
    tokens = random.integers(0, 3, 12).tolist()
    plans = [random.integers(0, 4, random.integers(0, 15)) for _ in range(3)]
    run = longest_run(tokens, plans)
    assert run.length == by_hand(tokens, plans)
    there = plans[run.plan][run.start_there : run.start_there + run.length].tolist()
    assert there == tokens[run.start : run.start + run.length]


def test_nothing_in_common_is_a_run_of_none():
    assert longest_run([1, 2], [[3, 4], []]).length == 0
    assert longest_run([1, 2], []).length == 0


def test_chance_is_that_of_independent_draws_where_tokens_are():
    plan = np.random.default_rng(0).integers(0, 4, 200_000)
    for length in (1, 3, 6):  # two uniform draws of four agree in a quarter
        places = (1000 - length + 1) * (len(plan) - length + 1)
        assert chance_of_run(1000, [plan], length) == pytest.approx(places / 4**length, rel=0.02)


def test_chance_of_one_token_that_repeats_is_every_pair_of_places():
    assert chance_of_run(10, [[0] * 20], 5) == 6 * 16


def test_what_no_chain_makes_has_no_chance():
    assert chance_of_run(100, [[0, 1, 2]], 4) == 0
    assert chance_of_run(100, [], 4) == 0


def test_chance_is_what_chains_have_in_common():
    random = np.random.default_rng(1)
    transition = random.dirichlet([0.3] * 6, 6)

    def chain(length: int) -> np.ndarray:
        tokens = [0]
        for draw in random.random(length - 1):
            tokens.append(min(5, int(np.searchsorted(transition[tokens[-1]].cumsum(), draw))))
        return np.array(tokens)

    plans = [chain(500) for _ in range(20)]
    length, found = 6, 0
    for _ in range(20):
        piece = chain(200)
        runs = {}
        for i in range(len(piece) - length + 1):
            runs[tuple(piece[i : i + length])] = runs.get(tuple(piece[i : i + length]), 0) + 1
        found += sum(runs.get(tuple(p[i : i + length]), 0) for p in plans for i in range(len(p) - length + 1))
    assert chance_of_run(200, plans, length) == pytest.approx(found / 20, rel=0.3)
