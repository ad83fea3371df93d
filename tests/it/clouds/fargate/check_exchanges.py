"""Checks recorded exchanges with AWS against botocore's model of the APIs.

usage: check_exchanges.py FILE      (one JSON object a line: target, request, status, answer, signed)

Prints one line for everything that is unknown, missing or of the wrong type, for signatures that botocore would not have made,
and at last how many exchanges it looked at.
"""

import json
import re
import sys

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.validate import ParamValidator

SERVICES = {
    "AmazonEC2ContainerServiceV20141113": "ecs",
    "Logs_20140328": "logs",
    "ServiceQuotasV20190624": "service-quotas",
    "secretsmanager": "secretsmanager",
}
# The tests' own.
CREDENTIALS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI")
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
# Errors that every operation of every service may give (signing, throttling, faults of the service).
COMMON_ERRORS = {
    "ThrottlingException",
    "ExpiredTokenException",
    "AccessDeniedException",
    "UnrecognizedClientException",
    "InternalFailure",
    "ServiceUnavailable",
}
JSON_TYPES = {
    "string": str,
    "integer": int,
    "long": int,
    "boolean": bool,
    "double": (int, float),
    "float": (int, float),
    "timestamp": (int, float),
    "blob": str,
    "structure": dict,
    "map": dict,
    "list": list,
}


def check(value, shape, path, found):
    """Walks a value along its shape."""
    kind = shape.type_name
    is_number = kind in ("integer", "long", "double", "float", "timestamp")
    if not isinstance(value, JSON_TYPES[kind]) or (is_number and isinstance(value, bool)):
        found.append(f"{path} is no {kind}")
    elif kind == "structure":
        for name in shape.required_members:
            if name not in value:
                found.append(f"{joined(path, name)} is required")
        for name, member in value.items():
            if name not in shape.members:
                found.append(f"{joined(path, name)} is unknown")
            elif member is not None:
                check(member, shape.members[name], joined(path, name), found)
    elif kind == "list":
        for place, member in enumerate(value):
            check(member, shape.member, f"{path}[{place}]", found)
    elif kind == "map":
        for name, member in value.items():
            check(name, shape.key, path, found)
            check(member, shape.value, joined(path, name), found)
    elif kind == "string" and shape.enum and value not in shape.enum:
        found.append(f"{path} is none of its values: {value}")


def joined(path, name):
    return f"{path}.{name}" if path else name


def check_error(operation, answer, found):
    name = str(answer.get("__type", "")).split("#")[-1]
    declared = {error.name: error for error in operation.error_shapes}
    if name in declared:
        # Readers take `message` and `Message`, as services write either.
        body = {key: value for key, value in answer.items() if key.lower() not in ("__type", "message")}
        check(body, declared[name], "", found)
    elif name not in COMMON_ERRORS:
        found.append(f"{name} is no error of it")


def check_signature(signed, service, found):
    """Signs the request again and compares."""
    headers = signed["headers"]
    told = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if not told:
        found.append("it is not signed")
        return
    names = told["headers"].split(";")
    missing = {"host", "x-amz-date", "x-amz-target"} - set(names)
    if missing:
        found.append(f"its signature leaves out {', '.join(sorted(missing))}")
    if told["service"] != service:
        found.append(f"its signature is for {told['service']}")
    request = AWSRequest(
        "POST",
        f"http://{headers['host']}/",
        headers={name: headers.get(name, "") for name in names},
        data=signed["body"].encode(),
    )
    request.context["timestamp"] = headers.get("x-amz-date", "")
    signer = SigV4Auth(CREDENTIALS, told["service"], told["region"])
    again = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    if (told["key"], told["day"], told["signature"]) != (CREDENTIALS.access_key, headers["x-amz-date"][:8], again):
        found.append("its signature is not botocore's")


def main():
    session = botocore.session.get_session()
    models, count = {}, 0
    with open(sys.argv[1], encoding="utf-8") as lines:
        for line in lines:
            exchange = json.loads(line)
            prefix, _, name = exchange["target"].rpartition(".")
            service = SERVICES[prefix]
            model = models.setdefault(service, session.get_service_model(service))
            operation = model.operation_model(name)
            found = []
            check(exchange["request"], operation.input_shape, "", found)
            # botocore's own opinion, too: it knows about lengths and ranges.
            report = ParamValidator().validate(exchange["request"], operation.input_shape)
            if report.has_errors() and not found:
                found.append(report.generate_report().replace("\n", "; "))
            if exchange["signed"]:
                check_signature(exchange["signed"], model.signing_name, found)
            for problem in found:
                print(f"{name} request: {problem}")
            found = []
            if exchange["status"] == 200:
                if operation.output_shape is not None:
                    check(exchange["answer"], operation.output_shape, "", found)
            else:
                check_error(operation, exchange["answer"], found)
            for problem in found:
                print(f"{name} answer: {problem}")
            count += 1
    print(f"checked {count}")


main()
