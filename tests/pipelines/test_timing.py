"""Times side by side, on one thread."""

from __future__ import annotations

import time

import torch

from parteq.pipelines.timing import latencies, paired, single_threaded


def test_functions_are_timed_in_turn() -> None:
    calls: list[str] = []
    times = latencies({name: lambda name=name: calls.append(name) for name in "abc"}, repeats=4, warm_up=2)
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4, "c": 4}
    assert [sorted(calls[start : start + 3]) for start in range(0, len(calls), 3)] == [["a", "b", "c"]] * 6
    assert calls[-9::3] == ["b", "c", "a"]  # each round begins with another one


def test_time_is_that_of_the_processor_in_milliseconds() -> None:
    def work() -> None:
        began = time.thread_time()
        while time.thread_time() < began + 0.005:
            pass

    times = latencies({"asleep": lambda: time.sleep(0.02), "working": work}, repeats=3)
    assert times["asleep"].max() < 5
    assert 5 <= times["working"].min() < 8


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with single_threaded():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_paired_ratios_are_of_the_first_to_each_other():
    calls: list[str] = []

    def wait(name: str, seconds: float) -> None:
        calls.append(name)
        time.sleep(seconds)

    milliseconds, ratios = paired([lambda: wait("a", 0.02), lambda: wait("b", 0.001)], repeats=3)
    assert calls == ["a", "b"] * 5
    assert milliseconds >= 20
    assert len(ratios) == 1
    assert ratios[0] > 2
