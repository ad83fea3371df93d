"""Makes in moto what an account must have before Fargate tasks can run there.

usage: prepare_moto.py ENDPOINT
"""

import json
import sys

import boto3

session = boto3.Session("AKIDEXAMPLE", "wJalrXUtnFEMI", region_name="us-east-1")


def client(service):
    return session.client(service, endpoint_url=sys.argv[1])


client("ecs").create_cluster(clusterName="burst", capacityProviders=["FARGATE", "FARGATE_SPOT"])
client("logs").create_log_group(logGroupName="/spillway/pods")
ec2 = client("ec2")
print(
    json.dumps(
        {
            "subnet": ec2.describe_subnets()["Subnets"][0]["SubnetId"],
            "securityGroup": ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"],
        }
    )
)
