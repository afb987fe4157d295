"""How a main starts and ends: help and flag errors at once, one line that names the flag, exit codes, JSON last."""

import json
import os
import subprocess
import sys

import pytest

from tests.programs import ROOT, command, environment

MAINS = {  # with a flag of each
    "la_tf.train": "--model_dir",
    "la_tf.export": "--model_dir",
    "la_tf.analyze": "--model_dir",
    "detection.export": "--model_dir",
    "detection.predict": "--out",
    "data.show": "--out",
    "data.check": "--bad_csv",
    "data.build_tfrecords": "--source",
}
SENTINEL = "TensorFlow was imported"


@pytest.fixture(scope="module")
def without_tensorflow(tmp_path_factory):
    """An environment in which importing TensorFlow or Keras fails: who needs neither does not notice."""
    folder = tmp_path_factory.mktemp("traps")
    for package in ("tensorflow", "keras"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(f"raise SystemExit('{SENTINEL}')\n")
    return {**environment(), "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def run(env, main, *flags, cwd=ROOT):
    return subprocess.run(command(main, *flags), cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def error_line(process, code):
    """The one line that a failed start leaves."""
    assert process.returncode == code, process.stderr
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("package", ["tensorflow", "keras"])
def test_the_trap_works(without_tensorflow, package):
    importing = [sys.executable, "-c", f"import {package}"]
    process = subprocess.run(importing, env=without_tensorflow, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1 and SENTINEL in process.stderr


@pytest.mark.parametrize("main", MAINS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_printed_without_tensorflow_and_is_no_failure(without_tensorflow, main, flag):
    process = run(without_tensorflow, main, flag)
    assert process.returncode == 0, process.stderr
    assert f"python -m {main}" in process.stdout and f"{MAINS[main]}:" in process.stdout


def test_help_of_the_main_job_lists_every_flag(without_tensorflow):
    from tests.la_tf.test_config import make

    listed = run(without_tensorflow, "la_tf.train", "--help").stdout
    for name in make().flat():
        assert f"--{name}:" in listed or f"--[no]{name}:" in listed, name


@pytest.mark.parametrize("main", MAINS)
def test_an_unknown_flag_is_named(without_tensorflow, main):
    line = error_line(run(without_tensorflow, main, f"{MAINS[main]}=x", "--temperature=3"), 2)
    assert "temperature" in line


@pytest.mark.parametrize(
    ("flags", "culprit"),
    [
        (["--width=many"], "--width=many"),
        (["--deterministic=perhaps"], "--deterministic=perhaps"),
        (["--dataset=digits", "--tau=-1", "--model_dir=x"], "--tau=-1"),
        (["--dataset=digits", "--drop_epochs=5,x", "--model_dir=x"], "--drop_epochs=5,x"),
        (["--dataset=digits", "--exporters=worst", "--model_dir=x"], "--exporters=worst"),
        (["--dataset=digits"], "--model_dir"),
        (["--model_dir=x"], "--dataset"),
        (["--dataset=csv:pictures.csv", "--model_dir=x"], "--dataset=csv:pictures.csv"),
        (["--dataset=digits", "--batch_size=1438", "--model_dir=x"], "--batch_size=1438"),
        (["digits"], "digits"),
        (["--flagfile=/nowhere/mine.flags"], "/nowhere/mine.flags"),
        (["--flagfile=/"], "--flagfile=/"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_bad_flag_ends_in_one_line_that_names_it_without_tensorflow(without_tensorflow, flags, culprit, tmp_path):
    flags = [flag.replace("--model_dir=x", f"--model_dir={tmp_path}/run") for flag in flags]
    assert culprit in error_line(run(without_tensorflow, "la_tf.train", *flags), 2)
    assert not (tmp_path / "run").exists(), "a run with bad flags has left a folder"


def test_a_bad_flag_in_a_flagfile_is_named(without_tensorflow, tmp_path):
    preset = tmp_path / "mine.flags"
    preset.write_text("# mine\n--dataset=digits\n--wdth=16\n")
    assert "wdth" in error_line(run(without_tensorflow, "la_tf.train", f"--flagfile={preset}"), 2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--wdth=16", "mine.flags:2: Unknown command line flag 'wdth'"),
        ("--width=many", "mine.flags:2: flag --width=many: "),
        ("digits", "mine.flags:2: digits: flags alone are understood"),
    ],
)
def test_what_is_wrong_in_a_flagfile_is_told_with_its_line(without_tensorflow, tmp_path, line, said):
    preset = tmp_path / "mine.flags"
    preset.write_text(f"--dataset=digits\n{line}\n")
    assert said in error_line(run(without_tensorflow, "la_tf.train", f"--flagfile={preset}"), 2)


@pytest.mark.parametrize("flag", ["--tau=nan", "--tau=inf", "--tau=1e400", "--epochs=2147483648", f"--seed=-{10**30}"])
def test_numbers_that_are_none_or_endless_are_refused(without_tensorflow, flag):
    line = error_line(run(without_tensorflow, "la_tf.train", "--dataset=digits", "--model_dir=x", flag), 2)
    assert flag.partition("=")[0] in line


def test_flags_after_the_flagfile_override_it(without_tensorflow, tmp_path):
    preset = tmp_path / "mine.flags"
    preset.write_text(f"--dataset=digits\n--model_dir={tmp_path}/run\n--tau=-1\n")
    process = run(without_tensorflow, "la_tf.train", f"--flagfile={preset}", "--tau=0.1", "--momentum=7")
    assert "--momentum=7" in error_line(process, 2)


@pytest.mark.parametrize("main", ["la_tf.export", "la_tf.analyze"])
def test_a_folder_without_a_run_is_named_without_tensorflow(without_tensorflow, main, tmp_path):
    assert "--model_dir" in error_line(run(without_tensorflow, main), 2)
    assert str(tmp_path) in error_line(run(without_tensorflow, main, f"--model_dir={tmp_path}"), 1)


def test_a_bad_figure_is_refused(without_tensorflow, tmp_path):
    line = error_line(run(without_tensorflow, "la_tf.analyze", f"--model_dir={tmp_path}", "--figure=pie"), 2)
    assert "--figure=pie" in line and "curves" in line


@pytest.mark.parametrize("flag", ["--rows=0", "--nearest=-1"])
def test_a_figure_of_nothing_is_refused(without_tensorflow, tmp_path, flag):
    assert flag in error_line(run(without_tensorflow, "la_tf.analyze", f"--model_dir={tmp_path}", flag), 2)


@pytest.mark.parametrize("main", ["la_tf.export", "la_tf.analyze"])
@pytest.mark.parametrize("content", ['{"model_type": "bert"}', "[]"])
def test_another_programs_config_is_named(without_tensorflow, main, content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    line = error_line(run(without_tensorflow, main, f"--model_dir={tmp_path}"), 1)
    assert str(tmp_path / "config.json") in line


MAIN = '''"""A main of one line: python -m little"""
from data.errors import UserError
from data import cli

def main({arguments}):
    {body}

if __name__ == "__main__":
    cli.run(main{options})
'''


def run_little(env, tmp_path, body, *flags, options="", arguments=""):
    (tmp_path / "little.py").write_text(MAIN.format(body=body, options=options, arguments=arguments))
    return run(env, "little", *flags, cwd=tmp_path)


def test_the_result_is_the_last_line_as_json(without_tensorflow, tmp_path):
    process = run_little(without_tensorflow, tmp_path, "print('on the way'); return {'knn_top1': 0.5}")
    assert process.returncode == 0 and json.loads(process.stdout.splitlines()[-1]) == {"knn_top1": 0.5}


def test_a_main_that_takes_files_gets_them_wherever_they_stand_of_any_bytes(without_tensorflow, tmp_path):
    files = ["a b.jpg", os.fsdecode(b"\xff\xfe.png"), "-c.jpg"]
    given = (files[0], "--nodebug", files[1], "--", files[2])
    taking = {"options": ", files=True", "arguments": "files"}
    process = run_little(without_tensorflow, tmp_path, "return {'files': files}", *given, **taking)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == {"files": files}
    refused = run_little(without_tensorflow, tmp_path, "return {}", files[0])
    assert error_line(refused, 2) == "error: a b.jpg: flags alone are understood, e.g. --dataset=digits"
    unknown = run_little(without_tensorflow, tmp_path, "return {}", files[0], "--colour=3", **taking)
    assert "colour" in error_line(unknown, 2)


def test_an_error_of_the_users_is_one_line_unless_the_traceback_is_asked_for(without_tensorflow, tmp_path):
    body = "raise UserError('letter.jpg: is no picture; remove it')"
    line = error_line(run_little(without_tensorflow, tmp_path, body), 1)
    assert line == "error: letter.jpg: is no picture; remove it"
    process = run_little(without_tensorflow, tmp_path, body, "--debug")
    assert process.returncode == 1 and "Traceback" in process.stderr and "letter.jpg" in process.stderr


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("open('/nowhere/a.jpg')", "/nowhere/a.jpg: No such file or directory"),
        ("open('/')", "/: Is a directory"),
        ("open('/dev/null/a.jpg')", "/dev/null/a.jpg: Not a directory"),
        ("open('x' * 300)", f"{'x' * 300}: File name too long"),
        ("'\\udcff'.encode()", "\\udcff: is no name in UTF-8, which is needed here; choose another"),
        ("raise UserError('a\\nb\\x1b[31m: is no picture')", "a\\nb\\x1b[31m: is no picture"),
    ],
)
def test_what_the_system_refuses_is_one_line_with_the_name(without_tensorflow, tmp_path, body, said):
    assert error_line(run_little(without_tensorflow, tmp_path, body), 1) == f"error: {said}"
    assert "Traceback" in run_little(without_tensorflow, tmp_path, body, "--debug").stderr


@pytest.mark.parametrize("body", ["raise OSError('no file is meant')", "'ä'.encode('ascii')"])
def test_an_error_without_a_name_is_our_own(without_tensorflow, tmp_path, body):
    process = run_little(without_tensorflow, tmp_path, body)
    assert process.returncode == 1 and "Traceback" in process.stderr


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("{main} | head -n1", 141, "a line\n"),  # 128 + SIGPIPE, as of a program that the signal has killed
        ("{main} 2>&1 >/dev/full", 1, "error: the disk that is written to: No space left on device; make room there,"),
        ("{main} --help 2>&1 >/dev/full", 1, "error: the disk that is written to: No space left on device; make room"),
        ("{main} >&-", 0, ""),
    ],
)
def test_output_that_nobody_reads_or_that_has_no_room(without_tensorflow, tmp_path, command, code, said):
    body = "for _ in range(100_000): print('a line')\n    return {}"
    (tmp_path / "little.py").write_text(MAIN.format(body=body, options="", arguments=""))
    shell = command.format(main=f"{sys.executable} -m little") + "; echo code ${PIPESTATUS[0]}"
    process = subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, env=without_tensorflow, capture_output=True, text=True, timeout=120
    )
    assert process.stdout.startswith(said) and process.stdout.endswith(f"code {code}\n")
    assert "Traceback" not in process.stderr and "Exception" not in process.stderr


def test_our_own_mistakes_keep_their_traceback(without_tensorflow, tmp_path):
    process = run_little(without_tensorflow, tmp_path, "return 1 / 0")
    assert process.returncode == 1 and "Traceback" in process.stderr


@pytest.mark.parametrize(
    ("options", "said"), [("", "stopped\n"), (", resumes=True", "stopped; the same command resumes\n")]
)
def test_an_interrupted_main_says_how_to_go_on(without_tensorflow, tmp_path, options, said):
    process = run_little(without_tensorflow, tmp_path, "raise KeyboardInterrupt", options=options)
    assert process.returncode == 130 and process.stderr == said


def test_native_chatter_is_hidden_and_what_comes_after_it_is_not(without_tensorflow, tmp_path):
    body = """import os, sys
    with cli.quiet_stderr():
        os.write(2, b'no GPU driver found')
    print('loud', file=sys.stderr)
    return {}"""
    assert run_little(without_tensorflow, tmp_path, body).stderr == "loud\n"
