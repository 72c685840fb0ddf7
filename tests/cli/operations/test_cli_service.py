"""``easeml service install``: prints and writes units; and the credential that systemd hands a command of ours."""

import pytest


def test_units_are_printed_and_nothing_is_written(run, tmp_path):
    answer = run("service", "install", "--print", "--folder", str(tmp_path / "units"), "--systemd", "252")
    assert answer.status == 0
    assert f"# {tmp_path}/units/easeml-referee.service" in answer.out
    assert "easeml-device@.service" in answer.out
    assert "easeml-mlflow" not in answer.out
    assert not (tmp_path / "units").exists()


def test_units_are_written_for_a_person_and_the_answer_says_what_is_still_to_do(run, tmp_path):
    words = ("service", "install", "referee", "mlflow", "--user", "--json")
    first, again = (run(*words, XDG_CONFIG_HOME=str(tmp_path)).json for _ in range(2))
    assert [(unit["name"], unit["written"]) for unit in first] == [
        ("easeml-referee.service", True),
        ("easeml-mlflow.service", True),
    ]
    assert [unit["written"] for unit in again] == [False, False]
    folder = tmp_path / "systemd" / "user"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {u["name"]: u["text"] for u in first}
    assert [(unit["role"], unit["credential"], unit["start"]) for unit in first] == [
        ("easeml_referee", f"{tmp_path}/easeml/referee.url", "easeml-referee"),
        ("easeml_worker", f"{tmp_path}/easeml/mlflow.url", "easeml-mlflow"),
    ]
    assert "User=" not in first[0]["text"]
    assert run("service", "install", "--user", "--account", "me", XDG_CONFIG_HOME=str(tmp_path)).status == 2


@pytest.mark.parametrize(("names", "database"), [((), "of-credential"), (("EASEML_DATABASE_URL",), "of-environment")])
def test_the_address_of_a_service_is_its_credential_unless_another_is_given(run, tmp_path, names, database):
    address = "postgresql+psycopg2://easeml_worker:secret-word@127.0.0.1:1/{}"
    (tmp_path / "database-url").write_text(address.format("of-credential") + "\n")
    given = {name: address.format("of-environment") for name in names}
    answer = run("status", CREDENTIALS_DIRECTORY=str(tmp_path), **given)
    assert answer.status == 2
    assert f"127.0.0.1:1/{database} cannot be reached" in answer.err
    assert "secret-word" not in answer.err
