from __future__ import annotations

import math
import os
import subprocess
import time
from pathlib import Path

from render.farm.pool import Failure, Pool


def test_a_crash_is_recorded_for_its_job_and_the_others_go_on() -> None:
    with Pool(os._exit, 2, timeout_s=60) as pool:
        results = list(pool.run([3, 4]))
    assert {job: failure.reason for job, failure in results} == {
        3: "the process crashed (exit code 3)",
        4: "the process crashed (exit code 4)",
    }


def test_a_stuck_job_is_stopped_and_errors_become_one_line() -> None:
    with Pool(time.sleep, 1, timeout_s=3) as pool:
        start = time.monotonic()
        results = list(pool.run([0, 1000, "two\nlines", 0]))
    assert time.monotonic() - start < 500
    assert results[0] == (0, None)
    assert results[1] == (1000, Failure("took longer than 3 s"))
    assert results[2][1].reason.startswith("TypeError: ")
    assert "Traceback" in results[2][1].log
    assert results[3] == (0, None)


def test_results_belong_to_their_jobs_and_a_pool_runs_again() -> None:
    with Pool(math.sqrt, 2, timeout_s=60) as pool:
        results = dict(pool.run([1, 4, 9, -1]))
        assert results.pop(-1).reason == "ValueError: math domain error"
        assert results == {1: 1.0, 4: 2.0, 9: 3.0}
        assert list(pool.run([])) == []
        assert list(pool.run([16])) == [(16, 4.0)]


def test_what_a_dying_process_wrote_is_kept_and_a_later_jobs_log_is_its_own() -> None:
    with Pool(_shout, 1, timeout_s=60) as pool:
        results = dict(pool.run(["quiet", "abort", "raise"]))
    assert results["quiet"] == "quiet"
    assert "says abort" in results["abort"].log
    assert "Fatal Python error: Aborted" in results["abort"].log
    assert results["abort"].reason == "the process crashed (SIGABRT)"
    assert "says raise" in results["raise"].log
    assert "abort" not in results["raise"].log


def test_what_a_stuck_job_started_is_ended_with_it(tmp_path: Path) -> None:
    with Pool(_start_and_wait, 1, timeout_s=4) as pool:
        ((_, failure),) = pool.run([tmp_path / "pid"])
    assert failure.reason == "took longer than 4 s"
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} lives on")


def _shout(job: str) -> str:
    if job != "quiet":
        print(f"it says {job}", flush=True)
    if job == "abort":
        os.abort()
    if job == "raise":
        raise ValueError(job)
    return job


def _start_and_wait(path: Path) -> None:
    child = subprocess.Popen(["sleep", "1000"])
    path.write_text(str(child.pid))
    child.wait()
