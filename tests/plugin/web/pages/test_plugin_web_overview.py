"""The overview: complete, escaped, and honest when the database is away."""

import re
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from page_reader import Page
from study_facts import NOW, next_step_of, study_facts

from easeml_airflow.web.pages.overview import charts
from easeml_airflow.web.pages.overview import page as page_module
from easeml_airflow.web.pages.overview.charts import map_of
from easeml_airflow.web.pages.overview.page import Query
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.formats import STEPS
from easeml_airflow.web.server.site import Site
from easeml_core.entities import Executor, StudyState, Symbol, TrialState
from easeml_core.services.registration.register import pause_study
from easeml_core.services.reports.overview import MOST_DRAWN, Board
from easeml_core.services.reports.recommendations import Assessment, Severity, Standing, Step, StepKind
from easeml_core.services.studies.candidates import add_candidates
from easeml_core.store.queries.assessments import NAMED, Crowd, KindOfNeed
from easeml_core.store.queries.overview import InstallationTotals, WeekCounts
from easeml_core.store.tables import leases, models, studies, trials


def step(kind=StepKind.COMPUTE, severity=Severity.INFO, **more):
    return Step(kind, severity, "more compute may be worth it", "2 candidates have not run", "train", **more)


USUAL = {
    **{
        "best_quality": 0.93928,
        "best_quality_day_ago": 0.93448,
        "running": 1,
        "waiting": 2,
        "device_seconds_day": 75.0,
    },
    **{"verdict": Symbol.PASS, "signal": 2, "signals": 3, "ended_day": 4, "queued_at": NOW - timedelta(minutes=6)},
}


def entry(study="x-ray", tenant="radiology", steps=(), standing=Standing.SEARCHING, **changes):
    """A study of ``board``."""
    facts = study_facts(study=study, tenant=tenant, **USUAL | changes)
    return Assessment(facts, list(steps) or [step()], standing)


NEEDY = {"steps": [step(StepKind.BUDGET, Severity.WARN)], "standing": Standing.NEEDS}
MANY_STEPS = [
    next_step_of("s-1", StepKind.OVERFITTING, Severity.BAD),
    *(next_step_of(f"s-{n}", StepKind.BUDGET, Severity.WARN) for n in (2, 3)),
]


def board_of(entries, steps, asked=None):
    """A board of these studies in their order, none left out by what is asked; steps of a kind are one need."""
    standings = Counter(str(e.standing) for e in entries)
    best = [e.facts.best_quality for e in entries if e.facts.best_quality is not None]
    rises = [e.rise for e in entries if e.rise is not None]
    crowd = Crowd(
        studies=len(entries),
        tenants=len({e.facts.tenant for e in entries}),
        **{name: standings[name] for name in ("needs", "searching", "finished", "paused")},
        bad=sum(e.standing == "needs" and e.steps[0].severity == Severity.BAD for e in entries),
        training=sum(e.facts.running - e.facts.lost for e in entries),
        waiting=sum(e.facts.waiting for e in entries),
        queued_at=min((e.facts.queued_at for e in entries if e.facts.queued_at), default=None),
        ended_day=sum(e.facts.ended_day for e in entries),
        judging=0,
        with_result=len(best),
        best=sum(best),
        compared=len(rises),
        rises=sum(rises),
        risen=sum(rise > 0 for rise in rises),
        read_at=NOW,
    )
    kinds = {step.kind: [s for s in steps if s.kind == step.kind] for step in steps}
    is_large = len(entries) > MOST_DRAWN
    return Board(
        crowd=crowd,
        needs=[_need_of(kind, found) for kind, found in kinds.items()],
        needs_total=len(steps),
        steps=list(steps),
        standing=(asked and asked.standing) or "",
        entries=list(entries)[:50],
        found=len(entries),
        first=0,
        elsewhere=0,
        likely=[],
        totals=InstallationTotals(sum(e.facts.device_seconds_day for e in entries), float(len(entries))),
        week=WeekCounts(3, 2, 0, 1, 0),
        busy=[0.5] * 24,
        improvements={},
        on_map=[e.facts.study for e in entries] if is_large else [],
        read_at=NOW,
    )


def _need_of(kind, steps):
    titles, times = {s.title for s in steps}, [s.since for s in steps if s.since]
    title, since = (titles.pop() if len(titles) == 1 else None), min(times, default=None)
    names = [s.study or "" for s in steps]
    return KindOfNeed(str(kind), str(steps[0].severity), len(steps), since, title, names[:NAMED], names[0])


@pytest.fixture
def client(client_of, monkeypatch):
    """A client of an overview with these rows."""

    def make(*entries, steps=(), viewer=None, **more):
        monkeypatch.setattr(
            page_module, "board", lambda _store, asked, names: replace(board_of(entries, steps, asked), **more)
        )
        viewer = viewer or Viewer("ada", frozenset({Role.OPERATOR}))
        return client_of(Site(lambda: Empty(), object, object, lambda: viewer))

    return make


@pytest.fixture
def usual_page(client):
    """Two studies, one of which needs a person."""
    steps = [
        next_step_of(
            "cards", StepKind.BUDGET, Severity.WARN, tenant="fraud-watch", title="budget spent", page="/studies/cards"
        ),
        next_step_of(None, StepKind.REFEREE, Severity.BAD, title="no referee runs", page=""),
    ]
    none = dict.fromkeys(("best_quality", "best_quality_day_ago", "verdict", "signal"))
    other = entry("cards", "fraud-watch", device_seconds_day=25.0, running=0, waiting=0, failed=1, **none, **NEEDY)
    return client(entry(), other, steps=steps).page("/")


def test_the_page_reads_as_recorded(usual_page, recorded):
    recorded(usual_page.recorded(), "overview")


def test_the_page_of_very_many_reads_as_recorded(client, recorded):
    rows = [entry(f"s-{n}", **(NEEDY if n == 0 else {})) for n in range(300)]
    page = client(*rows, steps=MANY_STEPS, entries=rows[:2], found=300).page("/?show=all")
    recorded(page.recorded(), "overview_of_very_many")


class Empty:
    """Stands for a store where the facts are given."""


def test_the_page_tells_every_fact_of_a_study(usual_page):
    first, other = usual_page.table
    assert list(first.values()) == [
        "radiology x-ray",
        "Searching",
        "0.9393 accuracy +0.0048 in 24 h",
        "",
        "1 2",
        "75.0 % of 50.0 % due",
        "Pass",
        "2 of 3",
    ]
    assert (other["State"], other["Best quality"], other["Trials now"]) == ("Budget spent", "none yet", "1")
    row = usual_page.part("tbody tr:not(.hot)")
    assert row.links == {"radiology x-ray": "/studies/x-ray"}
    assert row.has('[aria-label="signal 2 of 3"]')
    assert row.has('[aria-label="75.0 % used, 50.0 % due"]')
    assert usual_page.facts["Trials now"] == "1 running 2 queued longest wait 6 min, 8 finished in 24 h"


@pytest.mark.parametrize(
    ("changes", "column", "words"),
    [
        ({"steps": [step(StepKind.SEALING)]}, "State", "Being sealed"),
        ({"steps": [step(StepKind.PAUSED)], "standing": Standing.PAUSED}, "State", "Paused"),
        ({"standing": Standing.FINISHED}, "State", "Finished"),
        ({"steps": [step(StepKind.OVERFITTING, Severity.BAD)], "standing": Standing.NEEDS}, "State", "Overfitting"),
        ({"steps": [step(StepKind.LABELS, Severity.WARN)], "standing": Standing.NEEDS}, "Last verdict", "Labels"),
        ({"judging_at": NOW}, "Last verdict", "Waits"),
        ({"steps": [step(StepKind.NO_SET, Severity.BAD)], "gate_set_live": False}, "Last verdict", "No set"),
        ({"verdict": Symbol.WITHHELD}, "Last verdict", "Withheld"),
        ({"direct_signal": 1, "drift": "likely"}, "Signal", "2 of 3 second sample 1, drift likely"),
        ({"signal": None, "teams": 2}, "Signal", "by team"),
        ({"best_quality_day_ago": None}, "Best quality", "0.9393 accuracy new in 24 h"),
        ({"best_quality_day_ago": 0.93928}, "Best quality", "0.9393 accuracy unchanged 24 h"),
        ({"metric": "balanced_accuracy"}, "Best quality", "0.9393 balanced accuracy +0.0048 in 24 h"),
        ({"state": StudyState.PAUSED}, "Compute, 24 h (tick: due)", "100.0 % of 0.0 % due"),
    ],
)
def test_states_are_words(client, changes, column, words):
    (row,) = client(entry(**changes)).page("/").table
    assert row[column] == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"running": 0}, "No device "), ({"running": 1}, "1 device is "), ({"running": 3, "lost": 1}, "2 devices are ")],
)
def test_the_lead_counts_the_devices_that_train(client, changes, words):
    page = client(entry(**changes)).page("/")
    assert page.lead.startswith(words)
    assert "nothing waits" in page.part("p.now").text


def test_every_kind_of_step_has_a_symbol_and_a_word():
    assert set(STEPS) == set(StepKind)


def test_what_needs_a_person_leads_where_they_may_go(client):
    said = {"tenant": "radiology", "title": "the set is used up", "why": "no model is judged"}
    told = next_step_of("x-ray", StepKind.NO_SET, Severity.BAD, **said, page="/studies/x-ray/gate", since=NOW)
    shared = next_step_of(None, StepKind.REFEREE, Severity.BAD, title="no referee", page="", since=NOW)
    referee = Viewer("bob", frozenset({Role.REFEREE}))
    for viewer, path in ((None, "/studies/x-ray/submissions"), (referee, "/studies/x-ray/gate")):
        page = client(entry(**NEEDY), steps=[told, shared], viewer=viewer).page("/")
        needs = page.section("2 things need")
        assert [title.get_text() for title in needs.soup.select("b")] == [
            f"radiology, x-ray: {told.title}",
            "No referee",
        ]
        assert told.why in needs.items[0]
        assert needs.links == {"Seal a new set": path}
        assert len(page.soup.select("tr.hot")) == 1


def test_many_needs_of_a_kind_are_one_line_that_leads_to_them(client):
    def told(kind, study, severity=Severity.WARN, age=1):
        since = datetime.now(UTC) - timedelta(hours=age)
        said = {"title": f"{kind} of it", "why": "so it is", "page": "/compute"}
        return next_step_of(study, kind, severity, **said, since=since)

    budget = [told(StepKind.BUDGET, f"s-{n}", age=n) for n in range(1, 10)]
    steps = [told(StepKind.OVERFITTING, "x-ray", Severity.BAD), *budget]
    needy = [entry(f"s-{n}", f"s-{n}", **NEEDY) for n in range(1, 10)]
    other = {"steps": [step(StepKind.OVERFITTING, Severity.BAD)], "standing": Standing.NEEDS}
    many = client(entry(**other), *needy, steps=steps)
    page = many.page("/")
    alone, together = page.section("10 things").items
    assert alone.startswith(f"x-ray: {steps[0].title} ")
    assert together.startswith(f"9 studies: {budget[0].title} s-1, s-2, s-3, s-4, s-5 and 4 more 9 h ")
    assert page.links["Show them"] == "/?show=needs&kind=budget"
    assert "?needs=all" in page.links.values()
    every = many.page("/?needs=all")
    assert sum("budget of it" in item for item in every.section("10 things").items) == 9
    assert "?needs=all" not in every.links.values()
    only = many.page("/?show=needs&kind=budget")
    assert list(only.part('[aria-label="Held to"]').links.values()) == ["?show=needs&sort=needs"]
    assert "Budget spent" in only.part('[aria-label="Held to"]').text
    assert only.form("/").fields["kind"] == "budget", "a search stays among them"
    few = client(entry(**NEEDY), steps=steps[:6]).page("/")
    assert sum("budget of it" in item for item in few.section("6 things").items) == 5


def test_the_map_says_how_many_need_what(client):
    page = client(*(entry(f"s-{n}") for n in range(300)), steps=MANY_STEPS).page("/?show=all")
    assert page.part("div.kinds").items == ["Overfitting 1", "Budget spent 2"]
    assert page.part("div.kinds").links["Budget spent"] == "?show=needs&kind=budget&sort=needs"


def test_the_study_that_a_tasks_link_names_is_marked(client):
    many = client(*(entry(f"s-{k:03}") for k in range(20)))
    assert not many.page("/").has("tr[aria-current]")
    assert "s-019" in many.page("/?study=s-019").part("tr[aria-current]").text
    strange = many.get("/?study=%22%3E%3Cscript%3Ealert(1)").text
    assert "alert(1)" not in strange


def test_names_are_escaped(client):
    hostile, broken = "<script>alert(1)</script>", '"><img src=x>'
    told = next_step_of("x", StepKind.REFUSED, Severity.BAD, tenant=hostile, why=broken, page="/new")
    answer = client(entry(tenant=hostile, metric=hostile, **NEEDY), steps=[told]).get("/", params={"q": hostile})
    page = Page(answer.text)
    assert not page.has("img")
    assert not page.has("script:-soup-contains('alert')")
    assert hostile.partition("(")[0] not in answer.text
    assert page.text.count(hostile) >= 3, "of the need, the tenant and the metric"
    assert broken in page.text
    assert page.form("/").fields["q"] == hostile


def test_nothing_comes_from_outside_and_nothing_runs_inline(client):
    page = client(entry()).get("/")
    for unwanted in ("http://", "https://", "<style", " onclick", "javascript:"):
        assert unwanted not in page.text
    tags = Page(page.text).soup.find_all(True)
    assert not [name for tag in tags for name in tag.attrs if name.startswith("on")]
    scripts = [tag for tag in tags if tag.name == "script"]
    assert scripts, "what the page does by itself"
    assert all(re.fullmatch('/[^":]*', s["src"]) and set(s.attrs) == {"src", "defer"} for s in scripts), scripts
    assert not any(script.get_text().strip() for script in scripts)
    styles = [re.fullmatch(r"([a-z-]+):[0-9.]+(?:%|px)", tag["style"]) for tag in tags if tag.has_attr("style")]
    assert {style and style[1] for style in styles} == {"width", "left", "height"}


def test_an_empty_installation_says_what_to_do(client):
    empty = client().page("/").part("div.empty")
    assert "easeml_register_study" in empty.text
    assert empty.links == {"New study": "/new"}


# -- search, pages; what is selected and in which order is in tests/store/test_store_assessments.py -----------


ROWS = [
    entry("a", "t1", best_quality=0.5, best_quality_day_ago=0.1, device_seconds_day=80.0),
    entry("b", "t2", best_quality=0.9, best_quality_day_ago=0.9, device_seconds_day=20.0, **NEEDY),
    entry("c", "t3", best_quality=None, best_quality_day_ago=None, device_seconds_day=0.0, standing=Standing.PAUSED),
]


def test_a_search_without_a_find_offers_the_nearest_name(client):
    lost = {"entries": [], "found": 0}
    clear = {"Clear": "?show=all&sort=needs"}
    page = client(*ROWS, likely=["cards", "chest-xray"], **lost).page("/?q=chest-xrai&show=all").part(".empty")
    assert page.links == {"chest-xray": "?show=all&q=chest-xray&sort=needs"} | clear
    hidden = client(*ROWS, elsewhere=1, **lost).page("/?q=CHEST&show=paused").part(".empty")
    assert hidden.links == {"1 study of all": "?show=all&q=CHEST&sort=needs"} | clear
    assert page.part("b").text != hidden.part("b").text


def test_a_page_leads_to_its_neighbours_and_keeps_what_was_asked(client):
    page = client(*(entry(f"s-{k:03}") for k in range(50)), found=120, first=50)
    page = page.page("/?show=all&sort=name&q=s-&page=2")
    assert len(page.table) == 50
    pager = page.part(".pager")
    assert "51 to 100 of 120" in pager.text
    assert pager.links == {
        "Previous": "?show=all&q=s-&sort=name",
        "Next": "?show=all&q=s-&sort=name&page=3",
    }


def test_a_query_is_bounded():
    asked = {"show": "all", "q": "x" * 10_000, "sort": "name", "page": "0", "kind": "none"}
    query = Query.of(asked, shows=["all"], sorts=["name"], usual="all")
    assert (len(query.text), query.page, query.kind) == (200, 1, "")


# -- small charts -----------------------------------------------------------------------------------------------------


def test_small_charts_share_their_scales(client):
    found = {
        "a": [(NOW - timedelta(days=20), 0.5), (NOW - timedelta(days=7), 0.7)],
        "b": [(NOW - timedelta(days=1), 0.9)],
    }
    rows = page_module.rows_of(replace(board_of(ROWS, ()), improvements=found))
    first, second, third = (row.spark for row in rows)
    assert third is None
    assert (first.x, first.y) == (second.x, second.y)
    assert first.x.low == -14 * 86_400
    assert (
        first.path(first.lines[0]) == "M0.0 954.5H500.0V500.0H1000.0V500.0"
    )  # by hand: 1 - 0.02 / 0.44, 1 - 0.22 / 0.44
    assert charts.span_text([first, second, third]) == "Last 14 d, all on one scale"
    page = client(*ROWS, improvements=found).page("/")
    assert len(page.soup.select(".spark")) == 2 + 2  # two rows; mean quality and devices


def test_the_mean_never_falls_where_a_study_has_its_first_result():
    found = {"a": [(NOW - timedelta(days=14), 0.4)], "b": [(NOW, 0.8)]}
    means = charts.mean_quality(NOW, found)
    assert means[0] == pytest.approx(0.2)
    assert means[-1] == pytest.approx(0.6)
    assert means == sorted(means)


def test_shares_of_nothing_are_no_division_by_zero():
    nothing = InstallationTotals(0.0, 0.0)
    assert (ROWS[0].used_share(nothing), ROWS[0].due_share(nothing)) == (0.0, 0.0)
    assert page_module.rows_of(replace(board_of(ROWS, ()), totals=nothing))[0].share_bar <= 100


# -- very many --------------------------------------------------------------------------------------------------------


def test_the_map_has_a_cell_for_each_study():
    bad = {"steps": [step(StepKind.NO_SET, Severity.BAD)], "standing": Standing.NEEDS}
    entries = [entry(f"s-{k:03}", **(bad if k % 50 == 0 else NEEDY if k % 50 == 1 else {})) for k in range(250)]
    found = map_of(board_of(entries, ()).crowd, [e.facts.study for e in entries])
    assert found.sentence == "250 studies: 5 alert, 5 to decide, 240 searching"
    assert [patch.count for patch in found.patches] == [5, 5, 240]
    strokes = [int(n) for patch in found.patches for n in re.findall(r"v(\d+)", patch.path)]
    assert sum((n + 2) // 10 for n in strokes) == 250
    assert (found.width, found.height) == (128, 198)


# -- the real thing ---------------------------------------------------------------------------------------------------


def test_a_real_study_on_the_page(ask_as, make_study, database):
    make_study("cancer", candidates=[{"name": "tree", "kind": "decision_tree"}])
    add_candidates(database.worker, study="cancer", candidates=[{"name": "bayes", "kind": "gaussian_naive_bayes"}])
    with database.worker.begin() as tx:
        study = studies.get_study(tx, "cancer")
        ids = {"study_id": study.id, "data_version_id": studies.latest_data_version(tx, study.id).id}
        trial = trials.add_trial(tx, candidate_id=studies.list_candidates(tx, study.id)[0].id, **ids)
        attempt = leases.start_trial(
            tx,
            trial_id=trial,
            lease_key="w",
            lease_seconds=60,
            executor=Executor(trials.get_trial(tx, trial).implementation, "test"),
        )
        leases.finish_trial(tx, trial_id=trial, attempt=attempt, state=TrialState.SUCCEEDED, cost_seconds=2.5)
        models.add_observation(tx, trial_id=trial, quality=0.625, cost_seconds=2.5)
    page = ask_as("dev").page("/")
    (row,) = page.table
    assert (row["Tenant, study"], row["State"]) == ("lab cancer", "Searching")
    assert row["Best quality"] == "0.6250 accuracy new in 24 h"
    assert row["Compute, 24 h (tick: due)"] == "100.0 % of 100.0 % due"
    assert len(page.soup.select(".spark")) == 3
    pause_study(database.worker, study="cancer", paused=True)
    (row,) = ask_as("dev").page("/").table
    assert row["State"] == "Paused"
    with closing(database.server.connect(database=database.name)) as opened, opened.cursor() as cursor:
        cursor.execute("UPDATE work.studies SET state = 'ACTIVE', target_quality = 0.9, budget_seconds = 2.5")
    (need,) = ask_as("dev").page("/").section("1 thing needs").items
    assert need.startswith("lab, cancer: budget")
    assert all(number in need for number in ("2.5 of 2.5", "0.6250"))
