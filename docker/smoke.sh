#!/bin/bash
# Start the stack from nothing, run one night on one study, expect an observation, remove it all again.
# Needs Docker with Compose 2.24 or newer; touches no running stack of yours: the project has a name of its own.
set -euo pipefail
cd "$(dirname "$0")"

settings=$(mktemp)
compose() { docker compose -p easeml-smoke -f compose.yaml --env-file "$settings" "$@"; }
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
finish() {
  status=$?
  if [ $status -ne 0 ]; then compose logs --tail 30; echo "The smoke test failed; the reason is above."; fi
  compose down --volumes --timeout 30
  rm -f "$settings"
  exit $status
}
trap finish EXIT

# A secret of its own for each empty line of the example; a Fernet key has a form of its own.
while IFS= read -r line; do
  case $line in
    AIRFLOW_FERNET_KEY=) echo "$line$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')" ;;
    AIRFLOW_PORT=*) echo "AIRFLOW_PORT=${AIRFLOW_PORT:-18080}" ;;
    *=) echo "$line$(random)" ;;
  esac
done < env.example > "$settings"
chmod 600 "$settings"
. "$settings"

compose up --build --wait --wait-timeout 600

url=http://127.0.0.1:$AIRFLOW_PORT
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
token=$(curl -sf "$url/auth/token" -H 'Content-Type: application/json' \
  -d "{\"username\": \"admin\", \"password\": \"$AIRFLOW_ADMIN_PASSWORD\"}" | field access_token)
call() { curl -sf -H "Authorization: Bearer $token" -H 'Content-Type: application/json' "$@"; }

# Run a DAG to its end; it must succeed.
night() {
  call -X PATCH "$url/api/v2/dags/$1?update_mask=is_paused" -d '{"is_paused": false}' > /dev/null
  run=$(call "$url/api/v2/dags/$1/dagRuns" -d "{\"logical_date\": null, \"conf\": $2}" | field dag_run_id)
  call -N "$url/api/v2/dags/$1/dagRuns/$(python3 -c 'import sys, urllib.parse as p; print(p.quote(sys.argv[1]))' "$run")/wait?interval=2" |
    tail -n 1 | grep -q '"state": *"success"'
}

night easeml_register_study '{
  "tenant": "smoke", "study": "smoke-digits", "source": "sklearn:digits",
  "gate": {"condition": "n - o > 0 +/- 0.2", "steps": 8}, "meter": {"ranges": [0.2, 0.6], "tolerance": 0.1}}'
night easeml_nightly_retraining '{}'

trials=$(compose exec -T referee easeml status --json |
  python3 -c 'import json, sys; print(sum(t["trials"] for t in json.load(sys.stdin)["tenants"]))')
echo "$trials trials observed"
[ "$trials" -gt 0 ]
