#!/usr/bin/env bash
# Delete what docs/cluster.md, and ray up infra/gcp.yaml, make on Compute Engine, in the order in which it may go.
#   ZONE=us-central1-a REGION=us-central1 PROJECT=my-project BUCKET=my-bucket infra/cleanup/gce.sh [--yes]
set -euo pipefail
: "${ZONE:?set ZONE}" "${REGION:?set REGION, of the registry}" "${PROJECT:?set PROJECT}" "${BUCKET:?set BUCKET to its name, without gs://}"
# shellcheck source=infra/cleanup/steps.sh
source "$(dirname "$0")/steps.sh"

step "the workers, then the head" uv run --with google-api-python-client,cryptography ray down --yes infra/gcp.yaml
machines=$(gcloud compute instances list --project "$PROJECT" --filter "labels.ray-cluster-name=sess-ray" --format "value(name)")
if [ -n "$machines" ]; then
    # shellcheck disable=SC2086 # one word each
    step "machines that are left, with their disks" gcloud compute instances delete $machines --zone "$ZONE" --project "$PROJECT" \
        --delete-disks all --quiet
fi
step "the right to the bucket" gcloud storage buckets remove-iam-policy-binding "gs://$BUCKET" \
    --role "projects/$PROJECT/roles/sessRayWriter" --member "serviceAccount:sess-ray@$PROJECT.iam.gserviceaccount.com"
step "the head's right to start machines" gcloud projects remove-iam-policy-binding "$PROJECT" \
    --role roles/compute.instanceAdmin.v1 --member "serviceAccount:sess-ray-head@$PROJECT.iam.gserviceaccount.com"
for account in sess-ray-head sess-ray; do
    step "who the machines are: $account" gcloud iam service-accounts delete "$account@$PROJECT.iam.gserviceaccount.com" --project "$PROJECT" --quiet
done
step "the writer's role" gcloud iam roles delete sessRayWriter --project "$PROJECT"
step "the reader's role" gcloud iam roles delete sessRayReader --project "$PROJECT"
step "the image and its repository" gcloud artifacts repositories delete sess-ray --location "$REGION" --project "$PROJECT" --quiet
step "is a disk left?" gcloud compute disks list --project "$PROJECT" --filter "-users:*"
finish "the bucket, with images and maps; ray up's keys in the project's metadata (gcloud compute project-info describe) and in ~/.ssh."
