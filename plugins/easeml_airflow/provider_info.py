"""What Airflow reads about this package before it imports anything else of it: one plain dictionary.

It is read while Airflow's own configuration starts, so nothing here may import Airflow.
"""

from __future__ import annotations

from typing import Any

from easeml_airflow import settings

NAME = "Ease.ml"

CONNECTION = {
    "connection-type": "easeml",
    "hook-class-name": "easeml_airflow.hooks.easeml.EasemlHook",
    "hook-name": NAME,
    "conn-fields": {
        "artifacts": {
            "label": "Artifacts",
            "description": "Folder or address (s3://BUCKET/PATH) of data parts and models, the same for every worker.",
            "schema": {"type": ["string", "null"]},
        },
        "sslmode": {
            "label": "TLS",
            "description": "How the connection to PostgreSQL is secured; empty means TLS where the server offers it.",
            "schema": {
                "type": ["string", "null"],
                "enum": ["", "disable", "allow", "prefer", "require", "verify-ca", "verify-full", None],
            },
        },
        "sslrootcert": {
            "label": "Root certificate",
            "description": "File on every machine, without blanks in its path, for verify-ca and verify-full.",
            "schema": {"type": ["string", "null"]},
        },
    },
    "ui-field-behaviour": {
        "hidden-fields": [],
        "relabeling": {"schema": "Database", "login": "Role"},
        "placeholders": {
            "host": "127.0.0.1",
            "port": "5432",
            "schema": "easeml",
            "login": "easeml_worker",
            "artifacts": "/var/lib/easeml/artifacts",
        },
    },
}


def _modules(kind: str, *names: str) -> list[dict[str, Any]]:
    return [{"integration-name": NAME, "python-modules": [f"easeml_airflow.{kind}.{name}" for name in names]}]


def _config() -> dict[str, Any]:
    options = {
        option.name: {
            "description": option.description,
            "version_added": "0.1.0",
            "type": option.type,
            "default": option.default,
            "example": None,
        }
        for option in settings.OPTIONS
    }
    return {settings.SECTION: {"description": "How this installation of Ease.ml behaves.", "options": options}}


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata, in the form that Airflow's schema asks for."""
    return {
        "package-name": "easeml-airflow",
        "name": NAME,
        "description": "Share devices between many tenants, gate promotions statistically, meter overfitting.",
        "integrations": [{"integration-name": NAME, "tags": ["software"]}],
        "operators": _modules(
            "operators",
            "studies",
            "trials",
            "models",
            "promotion",
            "gate",
            "meter",
            "release",
            "datasets",
            "notify",
        ),
        "sensors": _modules("sensors", "alerts", "states"),
        "hooks": _modules("hooks", "easeml"),
        "triggers": _modules("triggers", "easeml", "answers", "submissions", "alerts", "production"),
        "bundles": [{"integration-name": NAME, "python-modules": ["easeml_airflow.bundles"]}],
        "connection-types": [CONNECTION],
        "extra-links": ["easeml_airflow.links.EasemlPageLink"],
        "notifications": [
            "easeml_airflow.notifications.base.EasemlNotifier",
            "easeml_airflow.notifications.channels.FunctionNotifier",
            "easeml_airflow.notifications.channels.MailNotifier",
            "easeml_airflow.notifications.channels.WebhookNotifier",
        ],
        "asset-uris": [
            {
                "schemes": ["easeml"],
                "handler": None,
                "to_openlineage_converter": "easeml_airflow.hooks.lineage.asset_dataset",
            }
        ],
        "task-decorators": [
            {"name": "easeml_trial", "class-name": "easeml_airflow.decorators.training_function.trial"}
        ],
        "config": _config(),
    }
