"""The launcher with workers that need no TensorFlow: what they are told, what is printed, how they all end."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from la_tf.local_workers import environment, share_of_gpus, split, visible_gpus
from tests.programs import ROOT

# A worker does what the flags `--do=N:what` say of its number N; those without one wait to be stopped.
WORKER = """
import json, os, signal, sys, time
number = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
open(f"pid{number}", "w").write(str(os.getpid()))
mine = [flag.split(":", 1)[1] for flag in sys.argv[1:] if flag.startswith(f"--do={number}:")]
for what in mine or ["wait"]:
    if what == "tell":
        names = ("TF_CONFIG", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "CUDA_VISIBLE_DEVICES")
        json.dump({"argv": sys.argv[1:], **{name: os.environ.get(name) for name in names}}, open(f"told{number}", "w"))
    elif what == "print":
        print(f"result of {number}")
        print(f"line of {number}\\nanother", file=sys.stderr)
    elif what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif what == "wait":
        try:
            while True:
                time.sleep(0.02)
        except KeyboardInterrupt:
            print("stopped; the same command resumes", file=sys.stderr)
            sys.exit(130)
    elif what.startswith("after="):  # until that worker is there
        while not os.path.exists(f"pid{what[6:]}"):
            time.sleep(0.02)
    elif what.startswith("exit="):
        sys.exit(int(what[5:]))
    elif what.startswith("kill="):
        os.kill(os.getpid(), int(what[5:]))
"""


IMPATIENT = """
import sys
from la_tf import launch, local_workers
local_workers.GRACE = local_workers.SETTLE = 0.1
sys.argv, behind = local_workers.split(sys.argv)
launch.cli.run(lambda: launch.main(behind))
"""


@contextmanager
def started(folder, *arguments, **variables):
    """A launcher with workers of that kind in `folder`, killed at the end whatever happens."""
    (folder / "worker.py").write_text(WORKER)
    path = os.pathsep.join([str(ROOT), str(folder)])
    # Unbuffered, Python writes a line in two parts, between which another worker's may get.
    own = {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "la_tf.launch", "--main=worker", *arguments],
        cwd=folder, env={**os.environ, **own, **variables},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def launched(folder, *arguments, **variables):
    """Runs such a launcher to its end; returns exit code, stdout and stderr."""
    with started(folder, *arguments, **variables) as process:
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


def wait_for(happened):
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pids(folder, count):
    """The process ids of the workers, once all are there."""
    files = [folder / f"pid{number}" for number in range(count)]
    wait_for(lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


def alive(pid):
    """Whether a process runs; one that has ended and waits to be asked how does not."""
    try:
        os.kill(pid, 0)
        return sys.platform != "linux" or Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_workers_are_told_of_each_other_and_given_the_flags(tmp_path):
    flags = ["--do=0:tell", "--do=1:tell", "--do=2:tell", "--name=a b"]
    assert launched(tmp_path, "--workers=3", "--", *flags)[0] == 0
    told = [json.loads((tmp_path / f"told{number}").read_text()) for number in range(3)]
    configs = [json.loads(one["TF_CONFIG"]) for one in told]
    assert [config["task"] for config in configs] == [{"type": "worker", "index": number} for number in range(3)]
    clusters = [config["cluster"] for config in configs]
    assert clusters[0] == clusters[1] == clusters[2]
    hosts, ports = zip(*(address.split(":") for address in clusters[0]["worker"]), strict=True)
    assert set(hosts) == {"localhost"}
    assert len({*ports}) == 3
    assert all(one["argv"] == ["--strategy=multiworker", *flags] for one in told)  # so that theirs have the last word


def test_the_cores_are_divided_unless_somebody_has_said_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(9)), raising=False)
    told = environment(1, [1000, 1001])
    assert (told["OMP_NUM_THREADS"], told["TF_NUM_INTRAOP_THREADS"]) == ("4", "7")
    assert environment(1, [*range(1000, 1020)])["OMP_NUM_THREADS"] == "1"


def test_the_gpus_are_divided(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1,GPU-ab,0,2")
    gpus = visible_gpus()
    assert [share_of_gpus(worker, 2, gpus) for worker in range(2)] == [["3", "1"], ["GPU-ab", "0"]]
    assert environment(0, [1], ["3", "1"])["CUDA_VISIBLE_DEVICES"] == "3,1"
    for nothing in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nothing)
        assert share_of_gpus(0, 2, visible_gpus()) is None
    code, _, err = launched(tmp_path, "--workers=2", "--", CUDA_VISIBLE_DEVICES="0")
    assert code == 2
    assert err.startswith("error: --workers=2: more than there are GPUs (1)")


def test_worker_0_prints_as_it_is_and_the_others_behind_their_name(tmp_path):
    flags = ["--do=0:print", "--do=1:after=0", "--do=1:print"]
    code, out, err = launched(tmp_path, "--workers=2", "--", *flags)
    assert code == 0
    assert out == "result of 0\n"
    assert sorted(err.splitlines()) == ["[worker 1] another", "[worker 1] line of 1", "another", "line of 0"]


@pytest.mark.parametrize(
    ("fate", "code", "message"),
    [
        ("kill=9", 1, "worker 1 was killed by SIGKILL, the others have been stopped; the same command resumes"),
        ("exit=1", 1, "worker 1 ended with exit code 1, the others have been stopped; its own message says why"),
        ("exit=2", 2, "worker 1 ended with exit code 2, the others have been stopped; its own message says why"),
        ("exit=77", 1, "worker 1 ended with exit code 77, the others have been stopped; its own message says why"),
    ],
)
def test_one_that_ends_badly_ends_all(tmp_path, fate, code, message):
    flags = ["--do=1:after=0", "--do=1:after=2", f"--do=1:{fate}"]
    found, out, err = launched(tmp_path, "--workers=3", "--", *flags)
    assert (found, out, err) == (code, "", f"error: {message}\n")
    assert not any(map(alive, pids(tmp_path, 3)))


def test_the_one_that_was_killed_is_named_though_another_gave_up_as_well(tmp_path):
    flags = ["--do=0:after=1", "--do=0:exit=1", "--do=1:after=0", "--do=1:kill=9"]
    err = launched(tmp_path, "--workers=2", "--", *flags)[2]
    assert err == "error: worker 1 was killed by SIGKILL, the others ended as well; the same command resumes\n"


def test_one_that_ignores_sigterm_is_killed(tmp_path):
    flags = ["--do=0:stubborn", "--do=0:wait", "--do=1:after=0", "--do=1:exit=1"]
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    (tmp_path / "worker.py").write_text(WORKER)
    process = subprocess.run(
        [sys.executable, "impatient.py", "--main=worker", "--", *flags],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}, timeout=60,
    )  # fmt: skip
    assert process.returncode == 1
    assert not any(map(alive, pids(tmp_path, 2)))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_are_passed_on(tmp_path, number, code):
    with started(tmp_path, "--workers=2", "--") as process:
        workers = pids(tmp_path, 2)
        time.sleep(0.2)  # they have to be in their `try`
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert err == f"stopped{' by SIGTERM' if code == 143 else ''}; the same command resumes\n"  # said once
    assert not any(map(alive, workers))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel does not tell children of their parent's end")
def test_no_worker_outlives_a_launcher_that_is_killed(tmp_path):
    with started(tmp_path, "--workers=3", "--") as process:
        workers = pids(tmp_path, 3)
        assert all(map(alive, workers))
        process.kill()
        wait_for(lambda: not any(map(alive, workers)))


def test_arguments_are_divided_at_the_first_two_dashes():
    assert split(["launch", "--workers=2", "--", "--a=1", "--", "b"]) == (
        ["launch", "--workers=2"],
        ["--a=1", "--", "b"],
    )
    assert split(["launch", "--workers=2", "--help", "--flagfile=f"]) == (["launch", "--help"], None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=digits"], "--: write the workers' flags behind it"),
        (["--workers=0", "--"], "--workers=0: must be 1 to 256"),
        (["--main=no.such", "--"], "--main=no.such: there is no such module"),
        (["--wrokers=2", "--"], "Unknown command line flag 'wrokers'"),
    ],
)
def test_wrong_arguments_are_told_in_a_line(tmp_path, arguments, message):
    code, out, err = launched(tmp_path, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
