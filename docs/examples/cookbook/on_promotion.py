"""By an asset: whenever the model in production changes, by whatever way, it is deployed."""

from airflow.sdk import DAG, Variable, task

from easeml_airflow.assets import production_model

FLOWERS = production_model("flowers")

with DAG("cookbook_on_promotion", schedule=[FLOWERS], catchup=False, max_active_runs=1):

    @task
    def deploy(triggering_asset_events):
        """The newest move alone counts; one that is told again, as after a restart of the triggerer, is out already."""
        moves = [event.extra["payload"] for event in triggering_asset_events[FLOWERS]]
        last = max(moves, key=lambda move: move["promotion_id"])
        if last["promotion_id"] <= int(Variable.get("flowers_deployed", default=0)):
            return None
        print(f"{last['kind']}: model {last['model_id']} of {last['study']} goes out")
        Variable.set("flowers_deployed", str(last["promotion_id"]))
        return last["model_id"]

    deploy()
