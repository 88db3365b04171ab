"""The user's own models and tasks: how they are found, what they may be called, and that they hide nothing of ours."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from trials import travel, usercode
from trials.errors import UserError

MODEL = "def net(input_shape, outputs, width=4):\n    return (input_shape, outputs, width)\nNOT_A_FUNCTION = 3\n"


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Undo what loading leaves behind."""
    monkeypatch.setattr(usercode, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a model file in it."""
    (tmp_path / "mymodel.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(name, place="trial.model.name"):
    with pytest.raises(UserError) as error:
        usercode.load(name, place)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["mymodel.py:net", "mymodel:net", "{}/mymodel.py:net"])
def test_file_module_and_absolute_path(folder, name):
    name = name.format(folder)
    assert usercode.is_usercode(name) and not usercode.is_usercode("mlp")
    assert usercode.load(name, "x")((3,), 2) == ((3,), 2, 4)
    assert usercode.load(name, "x") is usercode.load(name, "x")


def test_search_in_comes_after_the_working_directory(folder, tmp_path_factory):
    beside = tmp_path_factory.mktemp("study")
    (beside / "mymodel.py").write_text("def net(): return 'beside the study'\n")
    (beside / "only_there.py").write_text("def net(): return 'only there'\n")
    usercode.search_in(beside)
    assert usercode.load("mymodel.py:net", "x")((3,), 2) == ((3,), 2, 4)
    assert usercode.load("only_there.py:net", "x")() == "only there"
    assert usercode.load("only_there:net", "x")() == "only there"


def test_two_files_of_one_name_are_two_modules(folder):
    (folder / "other").mkdir()
    (folder / "other" / "mymodel.py").write_text("def net(): return 'other'\n")
    assert usercode.load("other/mymodel.py:net", "x")() == "other"
    assert usercode.load("mymodel.py:net", "x")((3,), 2) == ((3,), 2, 4)


def test_a_file_may_import_its_neighbours(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "a_neighbour.py").write_text("VALUE = 5\n")
    (folder / "sub" / "m.py").write_text("from a_neighbour import VALUE\ndef net(): return VALUE\n")
    assert usercode.load("sub/m.py:net", "x")() == 5


@pytest.mark.parametrize("name", ["sub/m.py:net", "mymodel:net"])
def test_folders_are_appended_to_the_path(folder, name):
    (folder / "sub").mkdir()
    (folder / "sub" / "m.py").write_text(MODEL)
    before = list(sys.path)
    usercode.load(name, "x")
    added = str(folder if name == "mymodel:net" else folder / "sub")
    assert sys.path[: len(before)] == before and sys.path[-1] == added
    usercode.load(name, "x")
    assert sys.path.count(added) == 1


def test_folders_called_like_ours_hide_nothing(tmp_path):
    """In a fresh process, as the command line starts one: only then are our packages not yet imported."""
    for package in ("analysis", "trials", "search_spaces", "orchestrator", "cluster"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('this is the user\\'s own folder')\n")
    (tmp_path / "m.py").write_text(MODEL)
    script = (f"from trials import usercode; usercode.load({str(tmp_path / 'm.py:net')!r}, 'x')\n"
              f"usercode.search_in({str(tmp_path)!r}); usercode.load('m:net', 'x')\n"
              "from importlib.util import find_spec\n"
              "for name in ('analysis', 'cluster', 'orchestrator', 'search_spaces', 'trials'):\n"
              "    print(find_spec(name).submodule_search_locations[0])")
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = Path(usercode.__file__).parents[1]
    assert [Path(path).parent for path in done.stdout.split()] == [ours] * 5


def test_errors(folder):
    assert error_of("nothere.py:net").startswith("trial.model.name: no file 'nothere.py' in " + str(folder))
    assert error_of("nothere:net") == ("trial.model.name: module 'nothere' cannot be imported: "
                                       "ModuleNotFoundError: No module named 'nothere'")
    assert error_of("mymodel.py:nett") == ("trial.model.name: mymodel.py has no function 'nett'; did you mean 'net'?")
    assert error_of("mymodel.py:NOT_A_FUNCTION").startswith("trial.model.name: mymodel.py has no function")


@pytest.mark.parametrize(("source", "said"), [("1/0", "ZeroDivisionError: division by zero"),
                                              ("def f(:", "SyntaxError"), ("import nothere", "ModuleNotFoundError")])
def test_broken_file(folder, source, said):
    (folder / "broken.py").write_text(source)
    message = error_of("broken.py:net")
    assert message.startswith(f"trial.model.name: {folder / 'broken.py'} cannot be imported: ") and said in message
    (folder / "broken.py").write_text(MODEL)  # mended: the failed import was not kept
    assert usercode.load("broken.py:net", "x")((3,), 2) == ((3,), 2, 4)


def test_check_params(folder):
    usercode.check_params("mymodel.py:net", {}, 2, "x")
    usercode.check_params("mymodel.py:net", {"width": 3}, 2, "x")
    for params, leading, said in [({"widht": 3}, 2, "widht"), ({}, 0, "input_shape"), ({"outputs": 1}, 2, "outputs")]:
        with pytest.raises(UserError, match=r"^trial.model: mymodel.py:net\(input_shape, outputs, width=4\) does not "
                                            f"take these parameters: .*{said}"):
            usercode.check_params("mymodel.py:net", params, leading, "trial.model")


def test_fingerprint_follows_the_source(folder):
    first = usercode.fingerprint(["mymodel.py:net", "digits"])
    assert first is not None and first == usercode.fingerprint(["mymodel.py:net"])
    (folder / "mymodel.py").write_text(MODEL + "# changed\n")
    assert usercode.fingerprint(["mymodel.py:net"]) == first  # what was imported is still the old
    usercode.search_in(folder)
    assert usercode.fingerprint(["mymodel.py:net"]) != first
    assert usercode.fingerprint(["digits", "mlp"]) is None


def test_fingerprint_follows_what_is_imported_beside_the_file_and_nothing_else(folder):
    (folder / "helper.py").write_text("WIDTH = 4\n")
    (folder / "parts").mkdir()
    (folder / "parts" / "__init__.py").touch()
    (folder / "parts" / "deep.py").write_text("import numpy, helper\n")
    (folder / "unrelated.py").write_text("a script\n")
    (folder / "m.py").write_text("import importlib\ndef net():\n    from parts import deep\n"
                                 "    importlib.import_module('late')\n    return deep.helper.WIDTH\n")
    (folder / "late.py").touch()
    names = ["m.py:net", "mymodel:net"]

    def now():
        usercode.search_in(folder)
        return usercode.fingerprint(names)
    first = now()
    (folder / "unrelated.py").write_text("changed\n")
    assert now() == first
    seen = {first}
    for file in ("helper.py", "parts/deep.py", "parts/__init__.py", "m.py", "late.py", "mymodel.py"):
        (folder / file).write_text((folder / file).read_text() + "# a thought\n")
        seen.add(now())
    assert len(seen) == 7
    one, other = folder / "helper.py", folder / "parts" / "deep.py"
    before = now()
    mine, theirs = one.read_text(), other.read_text()
    one.write_text(theirs)
    other.write_text(mine)
    assert now() != before  # the same contents under other names


def test_the_fingerprint_of_earlier_versions_can_be_told(folder):
    old = hashlib.blake2b((folder / "mymodel.py").read_bytes(), digest_size=8).hexdigest()
    assert usercode.earlier_fingerprint(["mymodel.py:net", "mlp"]) == old
    assert usercode.earlier_fingerprint(["mlp"]) is None


@pytest.mark.parametrize("name", ["m.py:net", "m:net"])
def test_a_study_begins_with_the_files_as_they_are(folder, name):
    """As in a notebook, where the process goes on while files are edited."""
    (folder / "helper.py").write_text("WIDTH = 4\n")
    (folder / "m.py").write_text("import helper\ndef net(): return helper.WIDTH\n")
    usercode.search_in(folder)
    before = usercode.load(name, "x")
    usercode.search_in(folder)
    assert before() == 4 and usercode.load(name, "x") is before
    (folder / "helper.py").write_text("WIDTH = 12\n")
    assert usercode.load(name, "x") is before  # not while a study runs
    usercode.search_in(folder)
    assert usercode.load(name, "x")() == 12
    (folder / "m.py").write_text("def net(): return 'another'\n")
    usercode.search_in(folder)
    assert usercode.load(name, "x")() == "another"


@pytest.mark.parametrize("name", ["analysis:build", "trials:build", "orchestrator.mine:build"])
def test_our_own_packages_hide_modules_of_their_names(folder, name):
    top, _, rest = name.partition(":")[0].partition(".")
    assert error_of(name) == (
        f"trial.model.name: '{top}' is a package of phasesweep's own, not your code; if you have a file of that name, "
        f"write {top}{'/' * bool(rest)}{rest}.py:function")


def test_importing_a_file_leaves_the_process_as_it_was(folder, capsys):
    (folder / "m.py").write_text(
        "import os, sys, numpy, torch\nprint('hello')\nos.chdir('/')\ntorch.set_default_dtype(torch.float64)\n"
        "sys.path.insert(0, '/first')\nDRAWN = numpy.random.rand()\ndef net(): return DRAWN\n")
    numpy.random.seed(5)
    expected = numpy.random.rand()
    numpy.random.seed(5)
    drawn = usercode.load("m.py:net", "x")()
    assert numpy.random.rand() == expected != drawn
    assert torch.get_default_dtype() == torch.float32 and Path.cwd() == folder and sys.path[-1] == "/first"
    assert capsys.readouterr().out == ""


@pytest.fixture
def arrived(monkeypatch, tmp_path_factory):
    """Unpack what travels on another machine, where the user's own folders are not."""
    def unpack(names):
        there = tmp_path_factory.mktemp("there")
        for name, content in travel.files(names, "x").items():
            path = there / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        monkeypatch.setattr(usercode, "SHIPPED", there / "_usercode")
        monkeypatch.setattr(usercode, "_folders", [])
        monkeypatch.chdir(there)
        for module in [module for module in sys.modules if "usercode_" in module or "mymodel" in module]:
            del sys.modules[module]
        return there
    return unpack


@pytest.mark.parametrize("name", ["mymodel.py:net", "mymodel:net", "{}/mymodel.py:net", "../{.name}/mymodel.py:net",
                                  "./mymodel.py:net"])
def test_after_it_has_travelled_a_name_means_the_same(folder, name, arrived, monkeypatch):
    name = name.format(folder)
    there = arrived([name, "mlp"])
    (folder / "mymodel.py").unlink()
    found = usercode.load(name, "x")
    assert found((3,), 2) == ((3,), 2, 4)
    assert Path(found.__code__.co_filename).is_relative_to(there)


def test_what_a_file_imports_travels_with_it(folder, arrived):
    (folder / "helper.py").write_text("from parts.deep import WIDTH\n")
    (folder / "parts").mkdir()
    (folder / "parts" / "__init__.py").touch()
    (folder / "parts" / "deep.py").write_text("WIDTH = 7\n")
    (folder / "data").mkdir()
    (folder / "data" / "big.bin").write_bytes(b"x" * 1000)
    (folder / "mymodel.py").write_text("from helper import WIDTH\ndef net(): return WIDTH\n")
    arrived(["mymodel.py:net"])
    for name in ("helper", "parts", "parts.deep"):
        sys.modules.pop(name, None)
    assert usercode.load("mymodel.py:net", "x")() == 7
    assert not [path for path in usercode.SHIPPED.rglob("*") if path.name == "big.bin"]


def test_an_installed_module_stays_where_it_is(folder):
    assert travel.files(["numpy:zeros", "mlp"], "x") == {}


def test_too_much_beside_a_file_is_not_sent(folder, monkeypatch):
    monkeypatch.setattr(travel, "MOST_FILES", 2)
    (folder / "a.py").touch()
    assert len(travel.files(["mymodel.py:net"], "x")) == 2
    (folder / "b.py").touch()
    with pytest.raises(UserError, match=r"^x: too much code beside .*mymodel\.py to send it to a cluster \(2 files"):
        travel.files(["mymodel.py:net"], "x")


def beside(folder: Path, width: int, where: str = "") -> str:
    """A model in a folder of its own, whose width its helper knows: imported at once, or ``where`` it is needed."""
    folder.mkdir()
    (folder / "helper.py").write_text(f"WIDTH = {width}\n")
    (folder / "m.py").write_text(f"{'' if where else 'import helper'}\ndef net():\n    {where or 'pass'}\n"
                                 "    return helper.WIDTH\n")
    return f"{folder}/m.py:net"


@pytest.mark.parametrize("where", ["", "import helper"])
def test_two_files_beside_which_lie_modules_of_one_name(tmp_path: Path, where: str) -> None:
    usercode.search_in(tmp_path)
    first, second = beside(tmp_path / "a", 4, where), beside(tmp_path / "b", 8, where)
    assert usercode.load(first, "model")() == 4
    with pytest.raises(UserError, match=r"^task: .*b/helper\.py and .*a/helper\.py are both imported as 'helper', .*"):
        usercode.load(second, "task")
    usercode.search_in(tmp_path)  # the next study
    assert usercode.load(second, "model")() == 8
    usercode.search_in(tmp_path)
    assert usercode.load(first, "model")() == 4 or where
    with pytest.raises(UserError, match="both imported as 'helper'"):
        usercode.load(second, "task")
