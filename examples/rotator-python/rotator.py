"""A rotator service in Python: leasehold.v1.RotatorService over mTLS, for the accounts of accounts.py.

    python3 rotator.py --proto ../../proto --accounts accounts.json --listen 127.0.0.1:9443 \
        --certificate tls.crt --key tls.key --ca ca.crt --broker spiffe://acme.test/leasehold

The rotation's parameter `account` names the account; the secret has the field `password`, which the broker makes.
"""

import argparse
import os
import signal
import sys
import tempfile
from concurrent import futures

import grpc
from grpc_tools import protoc

from accounts import Accounts, Overtaken, TooLate, Unknown


def load_protocol(folder: str):
    """Makes the messages and the service from the published .proto files. A real service would do this when it is built."""
    out = tempfile.mkdtemp(prefix="leasehold-proto-")
    files = [f"leasehold/v1/{name}.proto" for name in ("value", "rotator_service")]
    include = os.path.join(os.path.dirname(protoc.__file__), "_proto")
    if protoc.main(["protoc", f"-I{folder}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}", *files]) != 0:
        raise SystemExit("protoc failed")
    sys.path.insert(0, out)
    from leasehold.v1 import rotator_service_pb2, rotator_service_pb2_grpc

    return rotator_service_pb2, rotator_service_pb2_grpc


def password_of(fields) -> str | None:
    return fields["password"].text if "password" in fields else None


def make_service(messages, services, accounts: Accounts, broker: str):
    class Rotator(services.RotatorServiceServicer):
        # CreateCandidate is left unimplemented: the broker makes the password.

        def SetCandidate(self, request, context):
            self._only_the_broker(context)
            step = request.context
            with refusals(context):
                done = accounts.add(account_of(step, context), self._password(request.candidate, context), step.generation, deadline_of(step))
                return messages.SetCandidateResponse(already_set=done)

        def TestCandidate(self, request, context):
            self._only_the_broker(context)
            works = accounts.accepts(account_of(request.context, context), self._password(request.candidate, context))
            return messages.TestCandidateResponse(works=works, problem="" if works else "not_accepted")

        def FinishRotation(self, request, context):
            self._only_the_broker(context)
            step = request.context
            kept = [one for one in (password_of(request.current), password_of(request.previous)) if one is not None]
            # Before the first rotation nobody but the application knew its password; that one lives until the second.
            if len(kept) == 2:
                with refusals(context):
                    accounts.keep(account_of(step, context), kept, step.generation, deadline_of(step))
            return messages.FinishRotationResponse()

        # DiscardCandidate is left unimplemented too: the current password was never touched, and the next FinishRotation takes the candidate away.

        def _only_the_broker(self, context):
            names = context.auth_context().get("x509_subject_alternative_name", [])
            if [name.decode() for name in names if name.startswith(b"spiffe://")] != [broker]:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not the broker")

        def _password(self, fields, context) -> str:
            password = password_of(fields)
            if not password:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no password")
            return password

    return Rotator()


def account_of(step, context) -> str:
    if "account" not in step.parameters:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the rotation has no parameter `account`")
    return step.parameters["account"]


def deadline_of(step) -> float:
    return step.deadline.seconds + step.deadline.nanos / 1e9


class refusals:
    """Turns what the accounts refuse into what the contract says."""

    def __init__(self, context):
        self._context = context

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is Overtaken:
            self._context.abort(grpc.StatusCode.ABORTED, "a newer candidate was set")
        if kind is TooLate:
            self._context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too late")
        if kind is Unknown:
            self._context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such account")
        return False


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def main() -> None:
    parser = argparse.ArgumentParser(description="rotates passwords of a file of accounts for Leasehold")
    for name in ("proto", "accounts", "listen", "certificate", "key", "ca", "broker"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    messages, services = load_protocol(options.proto)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services.add_RotatorServiceServicer_to_server(make_service(messages, services, Accounts(options.accounts), options.broker), server)
    credentials = grpc.ssl_server_credentials([(read(options.key), read(options.certificate))], read(options.ca), require_client_auth=True)
    port = server.add_secure_port(options.listen, credentials)
    signal.signal(signal.SIGTERM, lambda *_: server.stop(5))
    server.start()
    print(f"listening on {port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
