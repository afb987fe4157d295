"""The dependency rule of WORKSPACE.md, read off the import statements: who imports whom, who defines flags."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("data", "models", "la_tf", "detection", "benchmarks", "evidence")
# How a run lives in its model_dir; the methods and what they are made of are none of detection's business.
RUNNING_PART = {
    f"la_tf.{name}"
    for name in (
        "bundle", "callbacks", "checkpoints", "child_processes", "commands", "estimator", "export_description",
        "exporters", "model_dir", "processes", "replicas", "results", "schedules", "specs", "trainable",
        "training_loop",
    )
}  # fmt: skip
FLAG_MODULES = {"data.flags", "la_tf.flags", "la_tf.source_flags", "data.cli", "detection.flags"}


def module_name(path):
    """`la_tf/train.py` -> "la_tf.train", `data/__init__.py` -> "data"."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def sources():
    """Every module of ours outside the tests, by name, parsed."""
    paths = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {module_name(path): ast.parse(path.read_text(), str(path)) for path in paths}


MODULES = sources()


def imports(tree, name):
    """The names that a module imports, wherever in it: modules, or what is taken out of them."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def our_imports(tree, name):
    """The modules of ours among them; a name that is taken out of a module counts as the module."""
    found = imports(tree, name)
    return {module for module in found if module in MODULES or module in PACKAGES}


def is_main(tree):
    """Whether a module is run as a program."""
    tests = (ast.unparse(node.test) for node in ast.walk(tree) if isinstance(node, ast.If))
    return any(test == "__name__ == '__main__'" for test in tests)


def defines_flags(tree):
    """Whether a module calls `flags.DEFINE_...`."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(
        (isinstance(call, ast.Attribute) and call.attr.startswith("DEFINE"))
        or (isinstance(call, ast.Name) and call.id.startswith("DEFINE_"))
        for call in calls
    )


def reads_flags(tree):
    """Whether a module touches absl's FLAGS."""
    names = (getattr(node, "attr", getattr(node, "id", None)) for node in ast.walk(tree))
    return "FLAGS" in names


MAINS = {name for name, tree in MODULES.items() if is_main(tree)}


def violations(allowed):
    """What modules import without being allowed to: `allowed(importer, imported)`."""
    return [
        f"{name} imports {imported}"
        for name, tree in MODULES.items()
        for imported in sorted(our_imports(tree, name))
        if not allowed(name, imported)
    ]


def package_of(name):
    return name.split(".")[0]


def test_each_package_imports_only_those_below_it():
    below = {
        "data": {"data"},
        "models": {"models"},
        "la_tf": {"la_tf", "data", "models"},
        "detection": {"detection", "data", "models", "la_tf"},
        "benchmarks": set(PACKAGES),
        "evidence": {"evidence", "la_tf", "data"},
    }
    assert violations(lambda name, imported: package_of(imported) in below[package_of(name)]) == []


def test_detection_knows_only_the_running_part_of_la_tf():
    def allowed(name, imported):
        outside = package_of(name) != "detection" or package_of(imported) != "la_tf"
        return outside or imported == "la_tf" or imported in RUNNING_PART

    assert violations(allowed) == []


def test_nothing_imports_a_main():
    assert {"la_tf.train", "la_tf.export"} <= MAINS
    assert violations(lambda name, imported: imported not in MAINS) == []


def test_nothing_imports_the_tests():
    for name, tree in MODULES.items():
        assert not any(package_of(imported) == "tests" for imported in imports(tree, name)), name


def test_flags_are_defined_and_read_in_few_places():
    places = FLAG_MODULES | MAINS
    assert {name for name, tree in MODULES.items() if defines_flags(tree)} - places == set()
    assert {name for name, tree in MODULES.items() if reads_flags(tree)} - places == set()


def test_no_module_is_called_utils():
    everywhere = [*MODULES, *(module_name(path) for path in (ROOT / "tests").rglob("*.py"))]
    assert [name for name in everywhere if "utils" in name.split(".")] == []


def test_top_level_imports_of_the_mains_reach_no_tensorflow():
    """What a main imports before `main()` runs, and what that imports in turn: `--help` has to be instant."""
    heavy = {"tensorflow", "keras", "faiss", "sklearn", "matplotlib", "tensorflow_datasets", "torch", "bokeh"}

    def reached(name, seen):
        for node in MODULES[name].body:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue  # inside functions and under TYPE_CHECKING
            for imported in imports(ast.Module([node], []), name):
                if package_of(imported) in heavy:
                    seen.add(f"{name} imports {imported}")
                if imported in MODULES and imported not in seen:
                    seen.add(imported)
                    reached(imported, seen)
        return seen

    for main in sorted(MAINS):
        if package_of(main) != "benchmarks":
            assert [line for line in reached(main, set()) if " imports " in line] == []


def test_pipelines_are_tuned_by_nobody():
    """Their options are made in one place (`data.reading.steady`); nothing is left to TensorFlow's tuning."""
    attributes = {
        name: {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)} for name, tree in MODULES.items()
    }
    assert [name for name, found in attributes.items() if "AUTOTUNE" in found] == []
    made = [name for name, found in attributes.items() if found & {"with_options", "Options"}]
    assert made == ["data.reading"]


CODE_FROM_FILES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}  # loading runs it
CODE_FROM_TEXT = {"eval", "exec", "compile", "__import__"}
CODE_IN_GRAPHS = {"py_function", "numpy_function", "py_func", "enable_unsafe_deserialization"}
SHELLS = {"system", "popen"}


def dangers(tree, name="somewhere"):
    """What a module does that could run a stranger's text or file as code."""
    found = [f"imports {each}" for each in imports(tree, name) if package_of(each) in CODE_FROM_FILES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CODE_IN_GRAPHS:
            found.append(f"uses {node.attr}")
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called in CODE_FROM_TEXT or (called.startswith("os.") and called[3:] in SHELLS):
            found.append(f"calls {called}")
        if given.get("shell", "False") != "False":
            found.append("calls a shell")
        if called.endswith(("np.load", "numpy.load")) and given.get("allow_pickle") != "False":
            found.append("loads arrays without allow_pickle=False")
        if called.endswith("load_model") and given.get("safe_mode") != "True":
            found.append("loads a Keras model without safe_mode=True")
    return found


def test_no_text_and_no_file_is_run_as_code():
    ours = {name: tree for name, tree in MODULES.items() if package_of(name) != "benchmarks"}
    assert {name: found for name, tree in ours.items() if (found := dangers(tree, name))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "keras.models.load_model(path)",
        "load_model(path, safe_mode=False)",
        "tf.py_function(f, [x], tf.float32)",
        "keras.config.enable_unsafe_deserialization()",
    ],
)
def test_the_rule_sees_what_could_run_code(source):
    assert dangers(ast.parse(source))


def test_the_rule_lets_pass_what_cannot():
    harmless = "re.compile(x); np.load(path, allow_pickle=False); load_model(path, safe_mode=True); run(command)"
    assert dangers(ast.parse(harmless)) == []


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("import data.errors", {"data.errors"}),
        ("import data.errors as e, models", {"data.errors", "models"}),
        ("from data import errors, draws", {"data", "data.errors", "data.draws"}),
        ("from data.errors import UserError", {"data.errors"}),
        ("def f():\n    from la_tf import train", {"la_tf", "la_tf.train"}),
        ("if TYPE_CHECKING:\n    import la_tf.train", {"la_tf.train"}),
        ("from . import train", {"la_tf", "la_tf.train"}),
        ("from .train import main", {"la_tf.train"}),
        ("import numpy as np", set()),
    ],
)
def test_the_rule_sees_every_way_to_import(source, imported):
    assert our_imports(ast.parse(source), "la_tf.somewhere") == imported


def test_the_rule_sees_mains_and_flags():
    assert is_main(ast.parse('if __name__ == "__main__":\n    main()'))
    assert not is_main(ast.parse('if name == "__main__":\n    main()'))
    assert defines_flags(ast.parse('flags.DEFINE_float("x", 1.0, "")'))
    assert defines_flags(ast.parse('from absl.flags import DEFINE_float\nDEFINE_float("x", 1.0, "")'))
    assert reads_flags(ast.parse('flags.FLAGS["x"].value'))
    assert not reads_flags(ast.parse("AUGMENTATION_FLAGS"))


def test_every_test_that_the_readme_names_is_there():
    readme = (ROOT / "README.md").read_text()
    named = {*re.findall(r"`(test_\w+)`", readme), *re.findall(r"`(?:\S*/)?(test_\w+\.py)`", readme)}
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    there = {*files, *re.findall(r"^def (test_\w+)", "\n".join(files.values()), re.MULTILINE)}
    assert len(named) > 15 and named <= there
