#!/usr/bin/env bash
# Delete what docs/cluster.md makes on GKE, in the order in which it may go.
#   CLUSTER=sess-ray ZONE=us-central1-a REGION=us-central1 PROJECT=my-project BUCKET=my-bucket infra/cleanup/gke.sh [--yes]
set -euo pipefail
: "${CLUSTER:?set CLUSTER to the name of the cluster}" "${ZONE:?set ZONE}" "${REGION:?set REGION, of the registry}"
: "${PROJECT:?set PROJECT}" "${BUCKET:?set BUCKET to its name, without gs://}"
# shellcheck source=infra/cleanup/steps.sh
source "$(dirname "$0")/steps.sh"
account=sess-ray@$PROJECT.iam.gserviceaccount.com

step "the runs, and with them all GPU pods" kubectl delete rayjobs,rayclusters --all --timeout 10m
step "the cluster, with its node pools" gcloud container clusters delete "$CLUSTER" --zone "$ZONE" --project "$PROJECT" --quiet
step "the right to the bucket" gcloud storage buckets remove-iam-policy-binding "gs://$BUCKET" \
    --role "projects/$PROJECT/roles/sessRayWriter" --member "serviceAccount:$account"
step "who the pods are" gcloud iam service-accounts delete "$account" --project "$PROJECT" --quiet
step "the writer's role" gcloud iam roles delete sessRayWriter --project "$PROJECT"
step "the reader's role" gcloud iam roles delete sessRayReader --project "$PROJECT"
step "the image and its repository" gcloud artifacts repositories delete sess-ray --location "$REGION" --project "$PROJECT" --quiet
step "is a disk left?" gcloud compute disks list --project "$PROJECT" --filter "-users:*"
finish "the bucket, with images and maps. A deleted role's name is taken for 37 days: 'gcloud iam roles undelete'."
