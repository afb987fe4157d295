"""Workers that wait for each other before TensorFlow starts, and what TF_CONFIG has to look like."""

import json
import socket
import threading

import pytest

from data.errors import FlagError, UserError
from la_tf import rendezvous
from la_tf.processes import task, workers
from la_tf.rendezvous import meet


def free_ports(count):
    """Ports that nobody listens at a moment ago."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def told(monkeypatch, addresses, index, kind="worker"):
    config = {"cluster": {"worker": addresses}, "task": {"type": kind, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


def test_a_process_knows_its_number_and_the_others_addresses(monkeypatch):
    told(monkeypatch, ["a:1", "b:2", "c:3"], 1)
    assert task() == (1, 3) and workers() == (["a:1", "b:2", "c:3"], 1)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"cluster": {}}', '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}']
)
def test_a_wrong_tf_config_is_told_in_a_line(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(FlagError, match=r"^--strategy=multiworker: TF_CONFIG [^\n]*$"):
        task()


@pytest.mark.parametrize(("index", "kind"), [(2, "worker"), (-1, "worker"), (0, "chief")])
def test_a_task_that_is_none_of_the_workers_is_refused(monkeypatch, index, kind):
    told(monkeypatch, ["a:1", "b:2"], index, kind)
    with pytest.raises(FlagError, match=f"{kind} {index}"):
        task()


def test_workers_that_listen_are_met_also_those_that_come_late(monkeypatch, capsys):
    here, there = free_ports(2)
    told(monkeypatch, [f"localhost:{here}", f"localhost:{there}"], 0)
    came = []

    def late():
        came.append(socket.create_server(("localhost", there)))

    timer = threading.Timer(0.8, late)
    timer.start()
    meet(patience=0.3, limit=60)
    timer.join()
    came[0].close()
    assert f"waiting for worker 1 (localhost:{there})" in capsys.readouterr().err


def test_a_worker_that_never_comes_is_named(monkeypatch):
    here, there = free_ports(2)
    told(monkeypatch, [f"localhost:{there}", f"localhost:{here}"], 1)
    with pytest.raises(UserError, match=rf"worker 0 \(localhost:{there}\).*start all workers"):
        meet(limit=0.5)


def test_an_address_that_is_taken_is_named(monkeypatch):
    with socket.create_server(("", 0), family=socket.AF_INET) as taken:
        port = taken.getsockname()[1]
        told(monkeypatch, [f"localhost:{port}", "localhost:1"], 0)
        with pytest.raises(UserError, match=rf"localhost:{port}: .*cannot be used"):
            meet(limit=0.5)


def test_a_worker_of_this_machine_alone_waits_where_no_other_machine_can_come():
    (port,) = free_ports(1)
    for host in ("localhost", "127.0.0.1"):
        with rendezvous._listener(f"{host}:{port}") as listener:
            assert listener.getsockname() == ("127.0.0.1", port)
