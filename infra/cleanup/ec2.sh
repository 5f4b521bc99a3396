#!/usr/bin/env bash
# Delete what docs/cluster.md, and ray up infra/aws.yaml, make on EC2, in the order in which it may go.
#   REGION=us-east-1 infra/cleanup/ec2.sh [--yes]
set -euo pipefail
: "${REGION:?set REGION}"
# shellcheck source=infra/cleanup/steps.sh
source "$(dirname "$0")/steps.sh"

step "the workers, then the head" uv run --with boto3 ray down --yes infra/aws.yaml
instances=$(aws ec2 describe-instances --region "$REGION" --query "Reservations[].Instances[].InstanceId" --output text \
    --filters Name=tag:ray-cluster-name,Values=sess-ray Name=instance-state-name,Values=pending,running,stopping,stopped,shutting-down)
if [ -n "$instances" ]; then
    # shellcheck disable=SC2086 # one word each
    step "machines that are left" aws ec2 terminate-instances --region "$REGION" --instance-ids $instances
    # shellcheck disable=SC2086
    step "until they are gone" aws ec2 wait instance-terminated --region "$REGION" --instance-ids $instances
fi
for role in head worker; do
    step "the $role's profile" aws iam remove-role-from-instance-profile --instance-profile-name "sess-ray-$role" --role-name "sess-ray-$role"
    step "  and itself" aws iam delete-instance-profile --instance-profile-name "sess-ray-$role"
    for policy in bucket image $([ "$role" = worker ] || echo autoscaler); do
        step "  its right to: $policy" aws iam delete-role-policy --role-name "sess-ray-$role" --policy-name "$policy"
    done
    step "  its role" aws iam delete-role --role-name "sess-ray-$role"
done
step "the security group, which ray up made" aws ec2 delete-security-group --region "$REGION" --group-name ray-autoscaler-sess-ray
step "the key, which ray up made (its file is in ~/.ssh)" aws ec2 delete-key-pair --region "$REGION" --key-name "ray-autoscaler_$REGION"
step "the image and its repository" aws ecr delete-repository --repository-name sess-ray --region "$REGION" --force
finish "the bucket, with images and maps."
