#!/usr/bin/env bash
# Delete what docs/cluster.md makes on EKS, in the order in which it may go.
#   CLUSTER=sess-ray REGION=us-east-1 ACCOUNT=123456789012 infra/cleanup/eks.sh [--yes]
set -euo pipefail
: "${CLUSTER:?set CLUSTER to the name of the cluster}" "${REGION:?set REGION}" "${ACCOUNT:?set ACCOUNT to the number of the account}"
# shellcheck source=infra/cleanup/steps.sh
source "$(dirname "$0")/steps.sh"

step "the runs, and with them all GPU pods" kubectl delete rayjobs,rayclusters --all --timeout 10m
step "the role of the pods" eksctl delete iamserviceaccount --cluster "$CLUSTER" --region "$REGION" --namespace default --name sess-ray --wait
step "the cluster, with its node groups and network" eksctl delete cluster --name "$CLUSTER" --region "$REGION" --wait
step "the right to the bucket" aws iam delete-policy --policy-arn "arn:aws:iam::$ACCOUNT:policy/sess-ray-bucket"
step "the image and its repository" aws ecr delete-repository --repository-name sess-ray --region "$REGION" --force
step "is a volume left?" aws ec2 describe-volumes --region "$REGION" --filters Name=status,Values=available \
    --query "Volumes[].[VolumeId,Size,CreateTime]" --output text
finish "the bucket, with images and maps."
