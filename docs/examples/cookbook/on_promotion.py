"""By an asset: whenever the model in production changes, by whatever way, it is deployed."""

from airflow.sdk import DAG, task

from easeml_airflow.assets import production_model

FLOWERS = production_model("flowers")

with DAG("cookbook_on_promotion", schedule=[FLOWERS], catchup=False, max_active_runs=1):

    @task
    def deploy(triggering_asset_events):
        """The newest event alone counts: those before it name models that are in production no more."""
        last = triggering_asset_events[FLOWERS][-1].extra
        print(f"{last['kind']}: model {last['model_id']} of {last['study']} goes out")
        return last["model_id"]

    deploy()
