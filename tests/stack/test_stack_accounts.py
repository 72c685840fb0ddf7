"""As root, Airflow runs under an account of its own: its tasks find nothing of the referee, server or owner."""

import contextlib
import io
import json
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from night.runs import await_dag
from rich.console import Console
from stack.account import FIRST_UID, UIDS, end_processes_of, prepare_account, trial
from stack.components import Component
from stack.failures import CommandFailedError
from stack.keys import load_keys, write_passwords
from stack.launcher import Stack
from stack.places import Places
from stack.processes import Processes, run_command
from stack.progress import Progress

from easeml_core.store.artifacts import ArtifactStore
from easeml_core.store.server import Server
from easeml_core.store.server_throwaway import throwaway_folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root's launcher can step down to another account")
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
HOSTILE = Path(__file__).with_name("hostile.py")
RANGE = range(FIRST_UID, FIRST_UID + UIDS)


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(params=["open", "closed"])
def places(request):
    """A state folder as an earlier launcher of root left it; once behind a folder that only root may pass."""
    with throwaway_folder() as folder:
        (folder / "way").mkdir(mode=0o700 if request.param == "closed" else 0o755)
        dags = folder / "way" / "dags"
        dags.mkdir(mode=0o755)
        found = Places.of(folder / "way" / "home", dags)
        found.make()
        (found.airflow / "left").write_text("of root")
        (found.airflow / "deep").mkdir()
        (found.airflow / "deep" / "left").write_text("of root")
        (found.artifacts / "ab").mkdir()
        found.data.mkdir(mode=0o755)
        yield found


@pytest.fixture
def account(places):
    account = prepare_account(places)
    yield account
    end_processes_of(account.uid)


@pytest.fixture
def processes(places):
    processes = Processes(places.logs)
    yield processes
    processes.stop(grace_seconds=1.0)


def living(uid):
    """The account's processes; one that ended and that nobody has taken note of yet is none."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.uids().real == uid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _interpreter_is_hidden():
    return not all(folder.stat().st_mode & 1 for folder in Path(sys.executable).resolve().parents)


def run_hostile(places, account, victims, marks):
    """What hostile code of the account finds of the marks and of the victims."""
    code = HOSTILE.read_text()
    arguments = json.dumps({"victims": victims, "marks": marks, "roots": [str(places.home)]})
    (places.logs / "hostile.log").unlink(missing_ok=True)
    run_command("hostile", (sys.executable, "-c", code, arguments), {}, places.logs, account)
    return json.loads((places.logs / "hostile.log").read_text().splitlines()[-1])


def referee_of(places, processes, mark):
    """Root's process with a secret in its environment, its log, a table of its own and the keys' file."""
    environment = {"EASEML_DATABASE_URL": mark}
    code = f"import os; print(os.environ['EASEML_DATABASE_URL']); {SLEEPER}"
    processes.start(Component("referee", (sys.executable, "-c", code), environment))
    (places.data / "table.csv").write_text(mark)
    (places.home / "secret.json").write_text(mark)
    (places.home / "secret.json").chmod(0o600)
    pid = processes.running[0].process.pid
    until(lambda: (places.logs / "referee.log").read_text().endswith("up\n"))
    return pid


@pytest.fixture
def groups():
    """A launcher with groups of its own, as a login of root has; nothing of it may be left to the account."""
    before = os.getgroups()
    os.setgroups([0, 4, 6])
    yield
    os.setgroups(before)


@pytest.mark.usefixtures("groups")
def test_hostile_code_finds_nothing(places, account, processes):
    mark = secrets.token_hex(16)
    pid = referee_of(places, processes, mark)
    found = run_hostile(places, account, [pid, os.getpid()], [mark])
    assert found["uid"] == [account.uid] * 3
    assert account.uid in RANGE
    assert (found["groups"], found["no_new_privs"], found["capabilities"]) == ([account.gid], "1", 0)
    assert found["seen"] > 1  # it did look at processes of others
    assert (found["environ"], found["files"], found["memory"], found["signalled"], found["traced"]) == ([],) * 5
    assert psutil.pid_exists(pid)


def test_the_same_code_finds_it_all_under_the_same_account(places, processes):
    mark = secrets.token_hex(16)
    pid = referee_of(places, processes, mark)
    found = run_hostile(places, None, [pid], [mark])
    assert (found["signalled"], found["memory"], found["traced"]) == ([pid],) * 3
    assert pid in found["environ"]
    names = {Path(name).name for name in found["files"]}
    assert {"referee.log", "table.csv", "secret.json"} <= names


def test_it_has_what_airflow_needs(places, account):
    run_command("account", trial(places), {}, places.logs, account)
    code = "open('left').read(), open('deep/left', 'a').write('!'), open('deep/new', 'w')"
    run_command("own", (sys.executable, "-c", code), {}, places.logs, account)
    assert (places.airflow / "deep" / "new").stat().st_uid == account.uid
    assert prepare_account(places) == account  # the next launcher takes the same again
    assert bool(account.doors) == (not (places.home.parent.stat().st_mode & 1) or _interpreter_is_hidden())


def test_who_only_looks_for_a_running_stack_takes_nothing_back(places, account):
    before = [folder.stat().st_mode for folder in (places.logs, places.artifacts, places.airflow)]
    places.make()
    assert [folder.stat().st_mode for folder in (places.logs, places.artifacts, places.airflow)] == before


def test_both_accounts_keep_artifacts_in_one_folder(places, account):
    """Also in a folder that the other made."""
    store, source = ArtifactStore(places.artifacts), places.airflow / "model"
    source.write_text("of root")
    source.chmod(0o644)
    reference = store.put(source)
    code = (
        "import sys; from easeml_core.store.artifacts import ArtifactStore\n"
        "store = ArtifactStore(sys.argv[1]); store.path(sys.argv[2])\n"
        "open('mine', 'w').write('of the account'); print(store.put('mine'))\n"
        "folder = store.path(sys.argv[2]).parent; open(folder / 'beside', 'w')\n"
    )
    run_command("put", (sys.executable, "-c", code, str(places.artifacts), reference), {}, places.logs, account)
    theirs = (places.logs / "put.log").read_text().strip()
    assert store.path(theirs).read_text() == "of the account"


def test_a_file_with_a_second_name_is_not_given_away(places):
    outside = places.home / "of-root"
    outside.write_text("secret")
    os.link(outside, places.airflow / "link")
    (places.airflow / "soft").symlink_to(outside)
    prepare_account(places)
    assert outside.stat().st_uid == 0


def test_it_reads_its_passwords_and_may_replace_them(places, account):
    keys = load_keys(places.keys)
    for _ in range(2):
        write_passwords(places.passwords, keys, account)
    status = places.passwords.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (account.uid, 0o600)


def test_it_dies_with_its_launcher(places, account):
    """Though a change of account takes back that wish."""
    launcher = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; import json; from stack.account import Account\n"
        "from stack.components import Component; from stack.processes import Processes\n"
        "account = Account(**json.loads(sys.argv[3])); processes = Processes(Path(sys.argv[2]))\n"
        "processes.start(Component('one', (sys.executable, '-c', sys.argv[4]), {}, account))\n"
        "print(processes.running[0].process.pid, flush=True); time.sleep(600)\n"
    )
    scripts = Path(sys.modules["stack"].__path__[0]).parent
    command = [sys.executable, "-c", launcher, str(scripts), str(places.logs), account.to_json(), SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        child = psutil.Process(int(started.stdout.readline()))
        until(lambda: (places.logs / "one.log").read_text() == "up\n")
        assert child.uids().real == account.uid
        started.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_what_left_its_parents_does_not_outlive_the_stack(places, account):
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True)"
    run_command("stray", (sys.executable, "-c", code), {}, places.logs, account)
    left = living(account.uid)
    assert len(left) == 1
    end_processes_of(account.uid)
    assert living(account.uid) == []


def test_what_is_added_is_shown_unless_the_secrets_lie_in_it(places, tmp_path):
    shown = dict(prepare_account(places, [tmp_path, places.home.parent, places.home]).shown)
    assert shown[str(tmp_path)] is False  # it may be read, and not be written
    assert not {str(places.home.parent), str(places.home)} & set(shown)


def test_a_trial_says_what_is_out_of_reach(places, account):
    places.dags.chmod(0o700)
    with pytest.raises(CommandFailedError, match="Permission denied"):
        run_command("account", trial(places), {}, places.logs, account)


def test_the_launcher_says_why_it_could_not_step_down(places):
    places.dags.chmod(0o700)
    said = io.StringIO()
    stack = Stack(places, Progress(Console(file=said, width=1000)))
    assert stack._airflow_account() is None
    assert re.fullmatch(
        r"Airflow and the referee share root's account: .*Permission denied.*dags'\)\.\n", said.getvalue()
    )


DAG = """
import json, sys
from pathlib import Path
from airflow.sdk import DAG, task

with DAG("hostile", schedule=None):
    @task
    def look(**context):
        import subprocess
        arguments = context["dag_run"].conf["arguments"]
        done = subprocess.run([sys.executable, "-c", {code!r}, arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])
    look()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hostile_task_of_the_whole_stack_finds_nothing():
    with throwaway_folder() as folder:
        dags = folder / "dags"
        dags.mkdir()
        (dags / "hostile.py").write_text(DAG.format(code=HOSTILE.read_text()))
        home = folder / "home"
        with Stack(Places.of(home, dags), Progress(Console(quiet=True))) as stack:
            server = Server(stack.places.database)
            urls = {role: server.url(role, "easeml") for role in ("easeml_referee", "easeml_owner", "easeml_worker")}
            marks = [urls[role].split("@")[0].split(":")[-1] for role in ("easeml_referee", "easeml_owner")]
            kept = stack.places.database.glob("*.json")
            marks += [
                v for f in kept for n, v in json.loads(f.read_text()).items() if n not in ("airflow", "easeml_worker")
            ]
            running = {r.component.name: r.process.pid for r in stack.processes.running}
            account = stack.account
            assert account is not None
            names = {name: psutil.Process(pid).uids().real for name, pid in running.items()}
            assert names.pop("referee") == 0
            assert set(names.values()) == {account.uid}
            rest = stack.access.rest()
            await_dag(rest, "hostile", stack.check)
            rest.pause("hostile", False)
            addresses = [url.replace("+psycopg2", "") for role, url in urls.items() if role != "easeml_worker"]
            bare = ["postgresql://" + role + "@" + a.split("@")[1] for role, a in zip(urls, addresses, strict=False)]
            arguments = {
                "victims": [running["referee"], os.getpid()],
                "marks": sorted(set(marks)),
                "roots": [str(home), str(server.place)],
                "addresses": bare,
            }
            # The marks go in by the run's conf, so the processes of the account have seen them: only others count.
            run = rest.trigger("hostile", {"arguments": json.dumps(arguments)})
            assert list(rest.wait("hostile", run))[-1] == "success"
            found = rest.xcom("hostile", run, "look")
            arguments["victims"] = [running["referee"]]
            command = (sys.executable, "-c", HOSTILE.read_text(), json.dumps(arguments))
            run_command("control", command, {}, stack.places.logs)  # root's own would have found it
            control = json.loads((stack.places.logs / "control.log").read_text().splitlines()[-1])
        assert running["referee"] in control["environ"]
        assert str(home / "postgres" / "secrets.json") in control["files"]
        assert len(set(marks)) >= 2
        assert found["uid"] == [account.uid] * 3
        assert found["seen"] > 5
        for kind in ("environ", "files", "memory", "signalled", "traced", "entered"):
            assert found[kind] == [], kind
        assert living(account.uid) == []
