"""By an asset: whenever the model in production changes, by whatever way, it is deployed."""

from airflow.sdk import DAG, Variable, task

from easeml_airflow.assets import production_model

FLOWERS = production_model("flowers")

with DAG("cookbook_on_promotion", schedule=[FLOWERS], catchup=False, max_active_runs=1):

    @task
    def deploy():
        """What the database says is in production, unless it is out already; an event could be forged, or old."""
        from easeml_airflow.hooks.easeml import EasemlHook
        from easeml_core.services.models.promotion import in_production

        now = next(iter(in_production(EasemlHook().get_store(), study="flowers")), None)
        if now is None or str(now.promotion_id) == Variable.get("flowers_deployed", default=None):
            return None
        print(f"{now.kind}: model {now.model_id} of {now.study} goes out")
        Variable.set("flowers_deployed", str(now.promotion_id))
        return now.model_id

    deploy()
