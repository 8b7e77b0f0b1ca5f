"""Learning-rate schedules: their factor at every share of training."""

import math

import pytest

from datamodules import UserError
from src.optim import Constant, Cosine, Step

STEPS = 200


@pytest.mark.parametrize("schedule", [Constant(0.1), Cosine(0.1), Step([0.5], warmup=0.1)])
def test_warm_up_rises_in_a_line_to_one(schedule):
    factors = [schedule(step, STEPS) for step in range(20)]
    assert factors == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert schedule(20, STEPS) == pytest.approx(1)


@pytest.mark.parametrize("schedule", [Constant(), Cosine(), Step([0.5])])
def test_without_warm_up_the_first_step_has_the_full_rate(schedule):
    assert schedule(0, STEPS) == 1


def test_constant_stays_at_one():
    assert {Constant(0.1)(step, STEPS) for step in range(20, STEPS)} == {1.0}


def test_cosine_falls_from_one_to_nearly_zero_and_is_halved_midway():
    schedule = Cosine(warmup=0.2)
    factors = [schedule(step, STEPS) for step in range(40, STEPS)]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == 1
    assert schedule(120, STEPS) == pytest.approx(0.5)  # halfway from 0.2 to 1
    assert factors[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 159 / 160)))
    assert schedule(STEPS, STEPS) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("schedule", [Constant(0.1), Cosine(0.1), Step([0.5], warmup=0.1)])
def test_past_its_end_a_schedule_stays_where_it_ended(schedule):
    assert {schedule(step, STEPS) for step in (STEPS, STEPS + 1, 2 * STEPS, 10 * STEPS)} == {schedule(STEPS, STEPS)}


def test_step_falls_at_its_shares_as_in_the_papers_imagenet_recipe():
    schedule = Step([0.95, 0.7, 0.85])  # epochs 84, 102 and 114 of 120, in any order
    factors = {epoch: schedule(epoch, 120) for epoch in (0, 83, 84, 101, 102, 113, 114, 119)}
    wanted = {0: 1, 83: 1, 84: 0.1, 101: 0.1, 102: 0.01, 113: 0.01, 114: 0.001, 119: 0.001}
    assert factors == pytest.approx(wanted)


@pytest.mark.parametrize("steps", [1, 3, 7, 1000])
@pytest.mark.parametrize("schedule", [Constant(0.3), Cosine(0.3), Step([0.5], warmup=0.3)])
def test_every_factor_is_positive_and_at_most_one_for_any_number_of_steps(schedule, steps):
    assert all(0 < schedule(step, steps) <= 1 for step in range(steps))


@pytest.mark.parametrize("warmup", [-0.1, 1, 500])
def test_warm_up_that_is_no_share_raises_user_error(warmup):
    with pytest.raises(UserError, match="warmup"):
        Cosine(warmup)


@pytest.mark.parametrize("milestones", [[84, 102], [0.5, 1.0], [0, 0.5]])
def test_milestones_that_are_no_shares_raise_user_error(milestones):
    with pytest.raises(UserError, match="milestones"):
        Step(milestones)
