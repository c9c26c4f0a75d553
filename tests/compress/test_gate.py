"""The teacher gate on ranks made by hand."""

import numpy as np
import pytest

from compress.chain import Chain, gathered, gathered_name
from compress.gate import best_teacher, check_gate, choose_teacher, per_user


@pytest.fixture
def folder(tmp_path):
    def write(name, ranks):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "valid_ranks.npy", np.array(ranks, np.int32))
        return tmp_path / name

    return write


# NDCG@10 of one target at rank 1, 3, 7 and 11 (or absent): 1, 1 / log2(4), 1 / log2(8), 0
ONE, THREE, SEVEN, NONE = 1.0, 0.5, 1 / 3, 0.0


def test_the_gate_averages_seeds_and_takes_the_best_control(folder):
    teachers = [folder("t0", [1, 3, 0]), folder("t1", [3, 3, 11])]
    weak, strong = [folder("w", [0, 0, 0])], [folder("s0", [3, 7, 7]), folder("s1", [3, 3, 0])]
    np.testing.assert_allclose(per_user(teachers), [(ONE + THREE) / 2, THREE, NONE])
    gate = check_gate(teachers, [weak, strong])
    assert gate.teacher_valid == pytest.approx((0.75 + 0.5 + 0) / 3)
    assert gate.control_valid == pytest.approx((0.5 + (1 / 3 + 0.5) / 2 + 1 / 6) / 3)
    assert gate.passed and gate.difference == pytest.approx(gate.teacher_valid - gate.control_valid)
    assert gate.ci95[0] <= gate.difference <= gate.ci95[1]


def test_a_teacher_that_is_only_equal_does_not_pass(folder):
    gate = check_gate([folder("t", [1, 3, 0])], [[folder("c", [3, 1, 0])]])
    assert not gate.passed and gate.difference == 0.0
    assert not check_gate([folder("u", [0, 3])], [[folder("d", [1, 3])]]).passed


def test_chains_have_names_that_read_back():
    chain = Chain("student", "small.v2", 3)
    assert Chain.parse(str(chain)) == chain
    assert (chain.name, Chain("student", "small.v2", 0).name) == ("small.v2@3", "small.v2")
    inputs = {"data": "d", gathered_name("prune", chain): "p", gathered_name("quantize", chain): "q"}
    assert list(gathered(inputs, "quantize")) == [(chain, "q")]


def test_the_best_of_several_teachers_is_chosen_on_cases_all_were_asked(folder):
    with_source = [folder("s0", [1, 3, 0]), folder("s1", [1, 1, 0])]
    scratch = [folder("n0", [3, 3, 1]), folder("n1", [3, 3, 1])]
    assert best_teacher({"source": with_source, "scratch": scratch}) == "scratch"
    choice = choose_teacher({"source": with_source, "scratch": scratch})
    assert choice.chosen == "scratch"
    assert choice.valid == pytest.approx({"source": (1 + 0.75 + 0) / 3, "scratch": (0.5 + 0.5 + 1) / 3})
    assert choice.difference == pytest.approx(choice.valid["scratch"] - choice.valid["source"])
    np.save(scratch[0] / "valid_judged.npy", np.array([True, True, False]))  # lists of a part of the users
    assert choose_teacher({"source": with_source, "scratch": scratch}).chosen == "source"
    assert choose_teacher({"one": with_source}).difference is None
    assert best_teacher({"first": with_source, "second": with_source}) == "first"
    assert choose_teacher({"first": with_source, "second": with_source}).chosen == "first"
