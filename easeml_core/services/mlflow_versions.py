"""Models that were let out as versions of a registered model of MLflow; an alias follows production.

The file itself is kept there as it is, with a page on how it is loaded. There is no flavour of MLflow in it: those load
models by pickle or by running their code, which we do with nobody's model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.errors import StateError
from easeml_core.services.mlflow_client import refusals
from easeml_core.services.mlflow_runs import find_run, is_whole, of_model, write_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.store.artifacts import ArtifactStore

_PAGE = 1000
_FOLDER = "model"
_NOTE = "A copy of what easeml's database says. What is changed here changes nothing there."
_LOADED = """
```python
from pathlib import Path
from easeml_core.training.formats import load_predictor

labels = load_predictor(Path("{file}"), "{format}").predict(inputs)  # float32, (rows, features), NaN for missing
```
"""
_PAGE_OF_MODEL = """# Model {model_id} of study {study}

{file}: format {format}, content {artifact}.
{loaded}
It can be handed in elsewhere: `easeml submit {file} --study STUDY --format {format} --message "from MLflow"`.
"""


class Registered:
    """The registered model of one study.

    Args:
        client: MLflow's.
        name: Of the registered model.
        study: Row of ``store.mirror.mirrored_studies``.
        experiment_id: Where the study's runs are.
    """

    def __init__(self, client: Any, name: str, study: Mapping[str, Any], experiment_id: str) -> None:
        self._client, self._name, self._study, self._experiment_id = client, name, study, experiment_id

    def write(self, models: Sequence[Mapping[str, Any]], artifacts: ArtifactStore, told: list[str]) -> int:
        """Add the versions that are missing; how many were added.

        Args:
            models: Rows of ``store.mirror.models_let_out``.
            artifacts: Where their files lie.
            told: Gets a sentence for each model that could not be added.
        """
        if not self._client.search_registered_models(f"name = '{self._name}'"):
            self._client.create_registered_model(self._name, {"easeml.study": self._study["study"]}, _NOTE)
        known, added = self._versions(), 0
        for model in models:
            with refusals(told, f"model {model['model_id']}"):
                version = known.get(str(model["model_id"]))
                if version is None:
                    self._add(model, artifacts)
                    added += 1
                elif model["passed"] and "easeml.gate" not in version.tags:
                    self._client.set_model_version_tag(self._name, version.version, "easeml.gate", "pass")
        return added

    def point(self, alias: str) -> str | None:
        """Let the alias name the version of the model in production; that version, or None where none is there."""
        standing = self._versions().get(str(self._study["production_model_id"]))
        if standing is None:
            return None
        if self._client.get_registered_model(self._name).aliases.get(alias) != standing.version:
            self._client.set_registered_model_alias(self._name, alias, standing.version)
        return str(standing.version)

    def _versions(self) -> dict[str, Any]:
        """Versions of ours by the text of the model's id."""
        found: dict[str, Any] = {}
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{self._name}'", _PAGE, page_token=token)
            found |= {v.tags["easeml.model_id"]: v for v in page if "easeml.model_id" in v.tags}
            token = page.token
            if not token:
                return found

    def _add(self, model: Mapping[str, Any], artifacts: ArtifactStore) -> None:
        """Keep the file with its run, then make the version: whoever is killed between does both again."""
        run_id = self._run_of(model)
        with artifacts.copy(model["artifact"]) as copy:
            file = copy.rename(copy.with_name(f"model.{model['format']}"))
            (file.parent / "README.md").write_text(self._page(model, file.name), encoding="utf-8")
            self._client.log_artifacts(run_id, str(file.parent), _FOLDER)
        tags = {"easeml.model_id": str(model["model_id"]), "easeml.artifact": model["artifact"]}
        tags |= {"easeml.format": model["format"]} | ({"easeml.gate": "pass"} if model["passed"] else {})
        self._client.create_model_version(
            self._name,
            f"runs:/{run_id}/{_FOLDER}",
            run_id,
            tags=tags,
            description=f"{model['format']}; README.md beside the file says how it is loaded",
            await_creation_for=0,
        )

    def _run_of(self, model: Mapping[str, Any]) -> str:
        """The run of the model's trial, or one of its own where it has none."""
        has_trial = model["trial_id"] is not None
        key = ("trial_id", model["trial_id"]) if has_trial else ("model_id", model["model_id"])
        found = find_run(self._client, self._experiment_id, key)
        if is_whole(found):
            return str(found.info.run_id)
        if has_trial:
            message = f"its trial {model['trial_id']} is not in MLflow yet"
            raise StateError(message)
        return write_run(self._client, self._experiment_id, of_model(self._study, model), found)

    def _page(self, model: Mapping[str, Any], file: str) -> str:
        loaded = "It is a program, packed.\n" if model["format"] == "command" else _LOADED
        words = {"study": self._study["study"], "file": file, **model}
        return _PAGE_OF_MODEL.format(loaded=loaded.format(**words), **words)
