from __future__ import annotations

import math
import os
import time

from render.pool import Pool


def test_a_crash_is_recorded_for_its_job_and_the_others_go_on() -> None:
    with Pool(os._exit, 2, timeout_s=60) as pool:
        results = list(pool.run([3, 4]))
    assert sorted(results) == [(3, "the process crashed (exit code 3)"), (4, "the process crashed (exit code 4)")]


def test_a_stuck_job_is_stopped_and_errors_become_one_line() -> None:
    with Pool(time.sleep, 1, timeout_s=3) as pool:
        start = time.monotonic()
        results = list(pool.run([0, 1000, "two\nlines", 0]))
    assert time.monotonic() - start < 500
    assert results[0] == (0, None)
    assert results[1] == (1000, "took longer than 3 s")
    assert results[2][1].startswith("TypeError: ")
    assert results[3] == (0, None)


def test_results_belong_to_their_jobs_and_a_pool_runs_again() -> None:
    with Pool(math.sqrt, 2, timeout_s=60) as pool:
        assert dict(pool.run([1, 4, 9, -1])) == {1: 1.0, 4: 2.0, 9: 3.0, -1: "ValueError: math domain error"}
        assert list(pool.run([])) == []
        assert list(pool.run([16])) == [(16, 4.0)]
