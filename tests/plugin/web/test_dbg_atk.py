from __future__ import annotations
import json, os, pickle, re, time, urllib.parse
import pytest
from device_rows import add_reasons, add_study, add_trial
from judged import Judged
from asked import Asked
from easeml_core.store.rows import change, scalar, rows
from easeml_core.services.audit import audit
from sqlalchemy import text

GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "adaptivity": "full"}

def of_mine(study, tenant, *, write):
    return tenant == "lab"

@pytest.fixture
def two(database):
    add_study(database, "mine")
    add_study(database, "secret-project", tenant="rivals", weight=3.0)
    add_trial(database, "mine", ended=1, took=2)
    add_trial(database, "mine", began=1)
    add_trial(database, "secret-project", began=2)
    return database

class Boom:
    def __reduce__(self):
        return (os.system, ("echo unpickled by $PPID >> /tmp/atk/pwned",))

@pytest.fixture
def rival_run(run_dag):
    from airflow.sdk import DAG, task
    with DAG("rival-secret-dag", schedule=None) as dag:
        @task
        def act():
            return 1
        act()
    run = run_dag(dag)
    from airflow.utils.session import create_session
    from sqlalchemy import text as t
    with create_session() as s:
        s.execute(t("UPDATE task_instance SET hostname='rival-gpu-17.corp', pool='default_pool' WHERE dag_id='rival-secret-dag'"))
        s.execute(t("UPDATE dag_run SET triggering_user_name='carol-of-rivals' WHERE dag_id='rival-secret-dag'"))
    return run

def test_place_of_others_and_pickle(two, rival_run, ask_as, text_of):
    key = f"rival-secret-dag/{rival_run.run_id}/act/-1"
    with two.worker.begin() as tx:   # role easeml_worker, SQL as any task has
        change(tx, "UPDATE work.trials SET lease_key = :key WHERE state = 'RUNNING' AND study_id = (SELECT id FROM work.studies WHERE name='mine')", key=key)
    read = text_of(ask_as("vic", rights=of_mine).get("/compute").text)
    print("\nLEAK host:", "rival-gpu-17.corp" in read)
    from airflow.utils.session import create_session
    from sqlalchemy import text as t
    with create_session() as s:
        s.execute(t("UPDATE task_instance SET executor_config=:p WHERE dag_id='rival-secret-dag'"), {"p": pickle.dumps(Boom())})
    if os.path.exists("/tmp/atk/pwned"): os.remove("/tmp/atk/pwned")
    ask_as("vic", rights=of_mine).get("/compute")
    print("PICKLE ran on GET /compute of a tenant:", os.path.exists("/tmp/atk/pwned"))

def test_started_by_forged(two, rival_run, ask_as, text_of):
    from easeml_core.store.actors import Actor, _acting
    from easeml_core.services.controls import set_study
    who = f"rival-secret-dag/{rival_run.run_id}/act"
    with _acting(Actor(who, "task")):
        set_study(two.worker, study="mine", priority=3)
    read = text_of(ask_as("vic", rights=of_mine).get("/audit").text)
    i = read.find("rival-secret-dag")
    print("\nAUDIT:", read[i:i+160])
    csv = ask_as("vic", rights=of_mine).get("/audit.csv").text
    print("CSV:", [l for l in csv.splitlines() if "rival-secret" in l][:1])

def test_last_key(two, ask_as, text_of):
    with two.worker.begin() as tx:
        rid = scalar(tx, "SELECT id FROM work.trials WHERE state='RUNNING' AND study_id=(SELECT id FROM work.studies WHERE name='secret-project')")
        change(tx, "UPDATE work.trials SET last_key = :k, last_try=2147483647 WHERE id=:id", k="../../<script>x/-1", id=rid)
    for key in ("../../x/-1", "./javascript:alert(1)/ /-1", "\\\\evil.example/x/y/-1", "a/%2e%2e/c/-1", "<b>/\"onx=/ '/-1", "//h/x/-1", "../r/../-1"):
        with two.worker.begin() as tx:
            change(tx, "UPDATE work.trials SET last_key = :k WHERE state='RUNNING'", k=key)
        page = ask_as("ada", "operator").get("/studies/secret-project").text
        print(repr(key), "->", re.findall(r'href="(/dags[^"]*|[^"]*evil[^"]*|javascript[^"]*)"', page))
    try:
        with two.worker.begin() as tx:
            print("ended changed?", change(tx, "UPDATE work.trials SET last_key='x' WHERE state='SUCCEEDED'"))
    except Exception as e: print("ended:", type(e).__name__, str(e)[:100])
    t=time.time()
    with two.worker.begin() as tx:
        change(tx, "UPDATE work.trials SET last_key = repeat('x', 100000000) WHERE state='RUNNING' AND study_id=(SELECT id FROM work.studies WHERE name='secret-project')")
    t=time.time(); import resource
    a=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    r=ask_as("ada", "operator").get("/studies/secret-project")
    print("study page with last_key of 100 MB:", r.status_code, f"{time.time()-t:.1f}s, page {len(r.text)/1e6:.1f} MB, rss +{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-a)/1024:.0f} MB")

def test_price_and_kind(two, ask_as):
    op = ask_as("ada", "operator")
    for q in ("price=nan","price=inf","price=-inf","price=-1","price=1e9","price=1.0001e9","price=1e308","price=1e400","price=1e-320","price=-0","price=","price=0x10","price=1_0","price=%00","price=1&price=2","price=%D9%A3"):
        try: print(q, op.get(f"/compute?{q}").status_code, end="; ")
        except Exception as e: print(q, "EXC", type(e).__name__, e, end="; ")
    from easeml_core.services.step import StepKind
    from easeml_airflow.web.view import STEPS
    print("\nmissing STEPS", [k for k in StepKind if k not in STEPS])
    for q in ["kind=%3Cscript%3E","kind=x","kind=%00","kind="+"a"*5000]+[f"kind={k}" for k in StepKind]:
        r=op.get(f"/?{q}"); print(q[:20], r.status_code, "<script>" in r.text.split("</head>")[1][:0] or "&lt;script" in r.text, end="; ")

def test_tiny_cost(two, ask_as):
    # a hostile worker tells that its trials cost nothing
    with two.worker.begin() as tx:
        vid = scalar(tx,"SELECT id FROM work.data_versions WHERE study_id=(SELECT id FROM work.studies WHERE name='mine')")
        for n in range(4):
            cid = scalar(tx, "SELECT min(c.id) FROM work.candidates c WHERE c.study_id=(SELECT id FROM work.studies WHERE name='mine') AND NOT EXISTS (SELECT FROM work.trials t WHERE t.candidate_id=c.id)")
            sid = scalar(tx,"SELECT id FROM work.studies WHERE name='mine'")
            tid = scalar(tx, "INSERT INTO work.trials (study_id,candidate_id,data_version_id) VALUES (:s,:c,:v) RETURNING id", s=sid,c=cid,v=vid)
            change(tx, "UPDATE work.trials SET state='RUNNING', attempt=1, lease_key='k', lease_until=now()+interval '1h', started_at=clock_timestamp(), attempt_started_at=clock_timestamp() WHERE id=:i", i=tid)
            change(tx, "UPDATE work.trials SET state='SUCCEEDED', lease_key=NULL, lease_until=NULL, cost_seconds=5e-324, finished_at=clock_timestamp() WHERE id=:i", i=tid)
            change(tx, "INSERT INTO work.observations (trial_id,quality,cost_seconds) VALUES (:i,:q,5e-324)", i=tid, q=0.1+0.1*n)
    from easeml_core.services.stopping import stopping_prices
    told = stopping_prices(two.worker)
    print("\n", [(s["study"], s["stops_above"]) for s in told["studies"]], told["is_heeded"])
    for who, rights in (("operator", None),):
        try:
            r = ask_as("ada","operator").get("/compute"); print("compute", r.status_code)
        except Exception as e:
            print("compute 500:", type(e).__name__, e)

def test_api_dag_both(two, ask_as, monkeypatch, airflow_db):
    monkeypatch.setenv("AIRFLOW__EASEML__API_DAG", "feed_{tenant}_{study}")
    from easeml_airflow.web.rights import dag_of
    def rights(study, tenant, *, write):
        dag_of(study, tenant); return True
    for path in ("/", "/studies/mine", "/compute", "/audit"):
        try: r = ask_as("vic", rights=rights).get(path); print(path, r.status_code, r.text[r.text.find("api_dag")-80:][:160].replace("\n"," "))
        except Exception as e: print(path, "EXC", type(e).__name__, str(e)[:100])
