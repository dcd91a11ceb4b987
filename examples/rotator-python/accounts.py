"""The system whose passwords are rotated: a file of accounts, as a small web server would have one.

Each account keeps the PBKDF2 hashes of the passwords that work, and the generation of the newest candidate that was set. Changes happen under a lock of the file and replace it as a whole, so a crash leaves the
old or the new one, and an overtaken writer is refused in the same step.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time

# Few, because the passwords are random; people's would need many more.
ITERATIONS = 10_000


class Overtaken(Exception):
    """A newer candidate was set."""


class TooLate(Exception):
    """The deadline has passed."""


class Unknown(Exception):
    """There is no such account."""


class Accounts:
    def __init__(self, path: str) -> None:
        self._path = path

    def accepts(self, name: str, password: str) -> bool:
        account = self._read().get(name)
        return account is not None and any(_matches(one, password) for one in account["passwords"])

    def add(self, name: str, password: str, generation: int, deadline: float) -> bool:
        """Lets the password work beside those that do. Answers whether it did already. `deadline` in Unix seconds."""
        with self._changing(name, generation, deadline) as account:
            if any(_matches(one, password) for one in account["passwords"]):
                return True
            account["passwords"].append(_hash(password))
            return False

    def keep(self, name: str, passwords: list[str], generation: int, deadline: float) -> None:
        """Ends every password but these."""
        with self._changing(name, generation, deadline) as account:
            account["passwords"] = [one for one in account["passwords"] if any(_matches(one, kept) for kept in passwords)]

    @contextlib.contextmanager
    def _changing(self, name: str, generation: int, deadline: float):
        with open(self._path + ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Looked at under the lock: whoever waited for it may have been overtaken meanwhile.
            if time.time() > deadline:
                raise TooLate
            accounts = self._read()
            account = accounts.get(name)
            if account is None:
                raise Unknown
            if account["generation"] > generation:
                raise Overtaken
            yield account
            account["generation"] = generation
            temporary = self._path + ".new"
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(accounts, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)

    def _read(self) -> dict:
        with open(self._path) as file:
            return json.load(file)


def _hash(password: str) -> dict:
    salt = secrets.token_bytes(16)
    return {"salt": salt.hex(), "hash": _derive(password, salt).hex()}


def _matches(stored: dict, password: str) -> bool:
    return hmac.compare_digest(_derive(password, bytes.fromhex(stored["salt"])), bytes.fromhex(stored["hash"]))


def _derive(password: str, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
