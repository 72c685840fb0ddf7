#!/bin/sh
# Submit the model of a commit and ask the gate about it: one symbol comes back.
#
#   gate.sh STUDY MODEL FORMAT COMMIT
#
# EASEML_DATABASE_URL holds the address of the tenant's login (`easeml tenant login`), as a secret of the CI system.
# EASEML_ARTIFACTS may name the place of models and data where the runner reaches it under another name.
#
# Exit status: 0 pass, or the study withholds its verdicts; 1 fail, or the referee refused; 2 an error, such as no answer
# within the wait. A job that is run again for the same commit gets the same answer and spends nothing, also after a
# time-out: the commit is the key of both requests. It must submit the same file, so train in a reproducible way.
#
# A fail says that the model was not shown to meet the condition. It may be worse, or the labels may be too few to tell
# (UNKNOWN): under mode fp-free UNKNOWN is released as fail, under fn-free as pass. Which of the two it was stays with
# the referee, since each further bit lets developers fit models to the test set. To lower the share of UNKNOWN, ask the
# referee for a larger test set or a wider tolerance (`easeml gate plan`); do not submit the same model again in the hope
# of another answer.
set -eu
study=$1 model=$2 format=$3 commit=$4

set -- --study "$study" --format "$format" --message "commit $commit" --request-key "ci/$commit" --no-gate --json
if [ -n "${EASEML_ARTIFACTS:-}" ]; then
    set -- "$@" --artifacts "$EASEML_ARTIFACTS"
fi
submitted=$(easeml submit "$model" "$@") || exit 2
id=$(printf '%s' "$submitted" | python -c 'import json, sys; print(json.load(sys.stdin)["model_id"])')
easeml gate ask "$study" "$id" --wait "${EASEML_WAIT:-1800}" --request-key "ci/$commit/gate"
