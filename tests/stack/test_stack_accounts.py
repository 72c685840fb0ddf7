"""As root, Airflow runs under accounts of its own: its tasks find nothing of the referee, database or API server."""

import contextlib
import io
import json
import os
import re
import secrets
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from demo_night.runs import await_dag
from rich.console import Console
from stack.account import FIRST_UID, UIDS, end_processes_of, prepare_accounts, trial
from stack.components import Component
from stack.failures import CommandFailedError
from stack.keys import load_keys, write_passwords
from stack.launcher import Stack
from stack.places import Places
from stack.processes import Processes, run_command
from stack.progress import Progress
from stack.rest import RestError

from easeml_core.sandbox.process import is_alive
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.server.server import Server, throwaway_folder

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
def accounts(places):
    accounts = prepare_accounts(places)
    yield accounts
    end_processes_of(accounts.tasks.uid, accounts.api_server.uid)


@pytest.fixture
def account(accounts):
    """That of tasks."""
    return accounts.tasks


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
    arguments = json.dumps({"victims": victims, "marks": marks, "roots": [str(places.home), str(places.api_server)]})
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


def api_server_of(places, accounts, processes, mark):
    """The API server's account with a secret in its environment, and one in its home."""
    code = f"import os; open('secret.json', 'w').write(os.environ['SEALED']); {SLEEPER}"
    processes.start(Component("api-server", (sys.executable, "-c", code), {"SEALED": mark}, accounts.api_server))
    until(lambda: (places.logs / "api-server.log").read_text() == "up\n")
    return processes.running[-1].process.pid


@pytest.mark.usefixtures("groups")
def test_hostile_code_finds_nothing(places, accounts, account, processes):
    mark = secrets.token_hex(16)
    pid = referee_of(places, processes, mark)
    server = api_server_of(places, accounts, processes, mark)
    assert psutil.Process(server).uids().real == accounts.api_server.uid
    found = run_hostile(places, account, [pid, server, os.getpid()], [mark])
    assert found["uid"] == [account.uid] * 3
    assert account.uid in RANGE
    assert (found["groups"], found["no_new_privs"], found["capabilities"]) == ([account.gid], "1", 0)
    assert found["seen"] > 1  # it did look at processes of others
    assert (found["environ"], found["files"], found["memory"], found["signalled"], found["traced"]) == ([],) * 5
    assert psutil.pid_exists(pid)
    assert psutil.pid_exists(server)
    control = run_hostile(places, accounts.api_server, [server], [mark])
    assert (control["environ"], control["signalled"]) == ([server], [server])
    assert {Path(name).name for name in control["files"]} == {"secret.json"}


def test_the_two_accounts_differ_and_are_the_same_next_time(places, accounts):
    assert accounts.tasks.uid != accounts.api_server.uid
    assert accounts.tasks.gid == accounts.api_server.gid  # so that both keep artifacts
    assert accounts.api_server.uid in RANGE
    assert prepare_accounts(places) == accounts


def run_code(places, account, code, *arguments, **environment):
    """What code of the account prints."""
    run_command("code", (sys.executable, "-c", code, *map(str, arguments)), environment, places.logs, account)
    return (places.logs / "code.log").read_text().strip()


def test_the_api_server_reads_logs_and_follows_no_link_that_a_task_put_in_their_place(places, accounts):
    """As root does, it would else show its own secrets to whoever may read the log."""
    write_passwords(places.passwords, load_keys(places.keys), accounts.api_server)
    plant = (
        "import os, sys; os.chdir(sys.argv[1]); open('plain', 'w').write('said')\n"
        "os.mkdir('run'); open('run/plain', 'w').write('said'); os.symlink('run', 'folder')\n"
        "for n, target in enumerate(sys.argv[2:]): os.symlink(target, f'link{n}')\n"
    )
    targets = ("/proc/self/environ", places.passwords)
    run_code(places, accounts.tasks, plant, places.task_logs, *targets)
    read = (
        "import os, sys; os.chdir(sys.argv[1])\n"
        "print(open('plain').read(), open('run/plain').read(), 'mark' in open('/proc/self/environ').read())\n"
        "for name in ('link0', 'link1', 'folder/plain', 'new'):\n"
        "    try: print('read', open(name, 'a' if name == 'new' else 'r').read())\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    found = run_code(places, accounts.api_server, read, places.task_logs, SEALED="mark").splitlines()
    assert found == ["said said True", *["Too many levels of symbolic links"] * 3, "Read-only file system"]


def test_tasks_can_put_nothing_in_the_api_servers_home(places, accounts):
    code = (
        "import os, sys\n"
        "for place in sys.argv[1:]:\n"
        "    try: os.makedirs(place)\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    wanted = [places.api_server / "plugins", places.api_server / "config", places.home / "more"]
    assert len(run_code(places, accounts.tasks, code, *wanted).splitlines()) == len(wanted)


def test_the_same_code_finds_it_all_under_the_same_account(places, processes):
    mark = secrets.token_hex(16)
    pid = referee_of(places, processes, mark)
    found = run_hostile(places, None, [pid], [mark])
    assert (found["signalled"], found["memory"], found["traced"]) == ([pid],) * 3
    assert pid in found["environ"]
    names = {Path(name).name for name in found["files"]}
    assert {"referee.log", "table.csv", "secret.json"} <= names


def test_it_has_what_airflow_needs(places, account):
    run_command("account", trial(places, account), {}, places.logs, account)
    code = "open('left').read(), open('deep/left', 'a').write('!'), open('deep/new', 'w')"
    run_command("own", (sys.executable, "-c", code), {}, places.logs, account)
    assert (places.airflow / "deep" / "new").stat().st_uid == account.uid
    assert bool(account.doors) == (not (places.home.parent.stat().st_mode & 1) or _interpreter_is_hidden())


def test_who_only_looks_for_a_running_stack_takes_nothing_back(places, account):
    before = [folder.stat().st_mode for folder in (places.logs, places.artifacts, places.airflow)]
    places.make()
    assert [folder.stat().st_mode for folder in (places.logs, places.artifacts, places.airflow)] == before


@pytest.mark.parametrize("which", ["tasks", "api_server"])
def test_all_accounts_keep_artifacts_in_one_folder(places, accounts, which):
    """Also in a folder that the other made."""
    account = getattr(accounts, which)
    store, source = ArtifactStore(places.artifacts), places.airflow / "model"
    source.write_text("of root")
    source.chmod(0o644)
    reference = store.put(source)
    code = (
        "import sys; from easeml_core.store.artifacts.local import ArtifactStore\n"
        "store = ArtifactStore(sys.argv[1]); store.path(sys.argv[2])\n"
        "open('mine', 'w').write('of the account'); print(store.put('mine'))\n"
        "folder = store.path(sys.argv[2]).parent; open(folder / 'beside', 'w')\n"
    )
    theirs = run_code(places, account, code, places.artifacts, reference)
    assert store.path(theirs).read_text() == "of the account"
    other = accounts.tasks if account is accounts.api_server else accounts.api_server
    run_code(places, other, "import sys; open(sys.argv[1] + 'x', 'w')", store.path(theirs))


def test_a_file_with_a_second_name_is_not_given_away(places):
    outside = places.home / "of-root"
    outside.write_text("secret")
    os.link(outside, places.airflow / "link")
    (places.airflow / "soft").symlink_to(outside)
    prepare_accounts(places)
    assert outside.stat().st_uid == 0


def test_the_api_server_reads_its_passwords_and_may_replace_them(places, accounts):
    keys = load_keys(places.keys)
    for _ in range(2):
        write_passwords(places.passwords, keys, accounts.api_server)
    status = places.passwords.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (accounts.api_server.uid, 0o600)


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
    until(lambda: not is_alive(child))


def test_what_left_its_parents_does_not_outlive_the_stack(places, account):
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True)"
    run_command("stray", (sys.executable, "-c", code), {}, places.logs, account)
    left = living(account.uid)
    assert len(left) == 1
    end_processes_of(account.uid)
    assert living(account.uid) == []


def test_what_is_added_is_shown_unless_the_secrets_lie_in_it(places, tmp_path):
    accounts = prepare_accounts(places, [tmp_path, places.home.parent, places.home])
    for account in (accounts.tasks, accounts.api_server):
        shown = dict(account.shown)
        assert shown[str(tmp_path)] is False  # it may be read, and not be written
        assert not {str(places.home.parent), str(places.home)} & set(shown)


def test_a_trial_says_what_is_out_of_reach(places, account):
    places.dags.chmod(0o700)
    with pytest.raises(CommandFailedError, match="Permission denied"):
        run_command("account", trial(places, account), {}, places.logs, account)


def test_the_launcher_says_why_it_could_not_step_down(places):
    places.dags.chmod(0o700)
    said = io.StringIO()
    stack = Stack(places, Progress(Console(file=said, width=1000)))
    assert stack._airflow_accounts() is None
    assert re.fullmatch(
        r"Airflow and the referee share root's account: .*Permission denied.*dags'\)\.\n", said.getvalue()
    )


def test_where_links_cannot_be_forbidden_the_api_server_is_not_given_the_address(places, monkeypatch):
    """An older kernel, or a container that may not mount."""

    def unbindable(*given):
        made = prepare_accounts(*given)
        return replace(made, api_server=replace(made.api_server, linkless=("/proc/none",)))

    monkeypatch.setattr("stack.launcher.prepare_accounts", unbindable)
    said = io.StringIO()
    stack = Stack(places, Progress(Console(file=said, width=1000)))
    stack.accounts = stack._airflow_accounts()
    assert stack.accounts.api_server.linkless == ()
    assert stack._sealed_url() == ""
    assert said.getvalue().startswith("Pages show nothing of sealed sets")


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
        print("I have looked")
        return json.loads(done.stdout.splitlines()[-1])

    @task
    def plant(**context):
        # Beside its own log, where the API server reads it, too.
        import os
        folder = Path({logs!r}) / "dag_id=hostile" / f"run_id={{context['run_id']}}" / "task_id=plant"
        (folder / "attempt=1.log.1").symlink_to("/proc/self/environ")
        (folder / "attempt=1.log.2").symlink_to({passwords!r})

    look() >> plant()
"""


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_hostile_task_of_the_whole_stack_finds_nothing():
    with throwaway_folder() as folder:
        dags = folder / "dags"
        dags.mkdir()
        home = folder / "home"
        places = Places.of(home, dags)
        given = {"code": HOSTILE.read_text(), "logs": str(places.task_logs), "passwords": str(places.passwords)}
        (dags / "hostile.py").write_text(DAG.format(**given))
        with Stack(places, Progress(Console(quiet=True))) as stack:
            server = Server(stack.places.database)
            urls = {role: server.url(role, "easeml") for role in ("easeml_referee", "easeml_owner", "easeml_worker")}
            marks = [urls[role].split("@")[0].split(":")[-1] for role in ("easeml_referee", "easeml_owner")]
            kept = stack.places.database.glob("*.json")
            marks += [
                v for f in kept for n, v in json.loads(f.read_text()).items() if n not in ("airflow", "easeml_worker")
            ]
            running = {r.component.name: r.process.pid for r in stack.processes.running}
            keys = load_keys(places.keys)
            marks += [keys.people_jwt, *keys.passwords.values()]
            assert stack.accounts is not None
            account, server_account = stack.accounts.tasks, stack.accounts.api_server
            names = {name: psutil.Process(pid).uids().real for name, pid in running.items()}
            assert (names.pop("referee"), names.pop("api-server")) == (0, server_account.uid)
            assert set(names.values()) == {account.uid}
            rest = stack.access.rest()
            await_dag(rest, "hostile", stack.check)
            rest.pause("hostile", False)
            addresses = [url.replace("+psycopg2", "") for role, url in urls.items() if role != "easeml_worker"]
            bare = ["postgresql://" + role + "@" + a.split("@")[1] for role, a in zip(urls, addresses, strict=False)]
            arguments = {
                "victims": [running["referee"], running["api-server"], os.getpid()],
                "marks": sorted(set(marks)),
                "roots": [str(home), str(server.place), str(places.api_server)],
                "addresses": bare,
                "pages": f"{stack.access.url}/easeml/labels",  # of those who may see sealed examples
            }
            # The marks go in by the run's conf, so the processes of the account have seen them: only others count.
            run = rest.trigger("hostile", {"arguments": json.dumps(arguments)})
            assert list(rest.wait("hostile", run))[-1] == "success"
            found = rest.xcom("hostile", run, "look")
            assert any("I have looked" in line for line in rest.log("hostile", run, "look"))
            with contextlib.suppress(RestError):
                shown = "".join(rest.log("hostile", run, "plant"))
                assert [mark for mark in marks if mark in shown] == []
            arguments["victims"] = [running["referee"], running["api-server"]]
            command = (sys.executable, "-c", HOSTILE.read_text(), json.dumps(arguments))
            signing = {"AIRFLOW__API_AUTH__JWT_SECRET": keys.people_jwt}
            run_command("control", command, signing, stack.places.logs)  # root's own would have found it
            control = json.loads((stack.places.logs / "control.log").read_text().splitlines()[-1])
        assert running["referee"] in control["environ"]
        assert set(control["memory"]) == {running["referee"], running["api-server"]}
        assert (control["signed"], found["signed"]) == (200, 403)
        assert str(home / "postgres" / "secrets.json") in control["files"]
        assert len(set(marks)) >= 2
        assert found["uid"] == [account.uid] * 3
        assert found["seen"] > 5
        for kind in ("environ", "files", "memory", "signalled", "traced", "entered"):
            assert found[kind] == [], kind
        assert living(account.uid) == living(server_account.uid) == []
