"""What in a script's folder is its owner's alone: keys and tokens. A ConfigMap shows them to all who may view it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping

from torchnet.config.model import JobSpec
from torchnet.k8s.objects.run_identity import key_path
from torchnet.yaml_io import YamlError, read_file

REASON = "may hold keys, which a ConfigMap would show to others; --secret NAME brings them"
KUBECONFIG = "is a kubeconfig, which opens the cluster to whoever reads it"
_NAMED = "is named by the kubeconfig, and opens the cluster to whoever reads it"
_ENV_FILE = "is an --env-file, whose variables the pods get without it"

File = tuple[int, int]
"""A file by device and inode: whatever link or spelling leads to it, it is the same."""

# By name, wherever they stand: a script in the home folder would bring all of them along.
_FOLDERS = (
    *(".ssh", ".gnupg", ".aws", ".azure", ".gcloud", ".config/gcloud", ".kube", ".docker"),
    *(".config/gh", ".kaggle", ".huggingface"),
)
_FILES = (
    *(".netrc", ".git-credentials", ".pgpass", ".pypirc", ".npmrc"),
    *(".cache/huggingface/token", ".cache/huggingface/stored_tokens"),
    # Variables for one machine, by habit with the keys of trackers and hubs among them. What a script needs of them
    # is named with --env, or is a Secret: a run that misses one says so at once, a key that was shown stays shown.
    *(".env", ".envrc"),
)
_NAMES = re.compile("|".join(f"/{re.escape(name)}/" for name in (*_FOLDERS, *_FILES)))
# The same for one of several environments: prod.env, .env.local. What is called an example is committed to show the
# names, most times without a value; a script may read it for them, and would not tell what it lacks.
_ENVIRONMENT = re.compile(
    r"(?!.*(?:^|[.])(?:example|sample|template|dist)(?:[.]|$))(?:.*[.]env|[.]env[.].*)", re.I
)
# RFC 7468, and OpenSSH's and PuTTY's own. A file of certificates alone may travel, whatever it is called.
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY|PuTTY-User-Key-File-")


# A line of YAML that is not indented: a key, an item, the end of one, a comment, a document's mark.
_OUTERMOST = re.compile(rb"""["']?[\w./-]+["']?[ \t]*:(?:\s|$)|-(?:\s|$)|[]}#%]|---|\.\.\.""")
_KEY = re.compile(rb"""["']?(\w+)["']?[ \t]*:[ \t]*["']?([^"'#\s]*)""")


def is_private(path: str, *, is_folder: bool = False) -> bool:
    """Whether ``path``, below the script's folder and with slashes, is or is in something that stays with its owner."""
    is_environment = not is_folder and _ENVIRONMENT.fullmatch(path.rpartition("/")[2])
    return bool(is_environment or _NAMES.search(f"/{path}/"))


def of_the_launch(job: JobSpec, cwd: str, environ: Mapping[str, str]) -> dict[File, str]:
    """What this launch itself reads and no script needs, with the reason; "" for what is nothing to tell of.

    A pod template is no secret: it stands in the objects as it is, and travels.
    """
    # A script in the home folder must not take the key of all runs' secrets along.
    found = dict.fromkeys((key_path(environ),), "")
    found |= dict.fromkeys(job.env_file, _ENV_FILE)
    # Also those that this launch does not go by: they are the same user's.
    for paths in (job.kubernetes.kubeconfig, environ.get("KUBECONFIG"), "~/.kube/config"):
        for path in filter(None, (paths or "").split(os.pathsep)):
            path = os.path.join(cwd, os.path.expanduser(path))
            found |= {path: KUBECONFIG, **dict.fromkeys(_beside(path), _NAMED)}
    known = {}
    for path, reason in found.items():
        try:
            status = os.stat(os.path.join(cwd, path))
        except (OSError, ValueError):
            continue
        known[status.st_dev, status.st_ino] = reason
    return known


def _beside(path: str) -> Iterator[str]:
    """The files with credentials that a kubeconfig names; their paths are relative to it."""
    try:
        document = read_file(path)
    except YamlError:
        return  # who uses it says what is wrong with it
    users = document.get("users") if isinstance(document, dict) else None
    for entry in users if isinstance(users, list) else ():
        user = entry.get("user") if isinstance(entry, dict) else None
        for key in ("tokenFile", "client-key"):
            name = user.get(key) if isinstance(user, dict) else None
            if isinstance(name, str) and name:
                yield os.path.join(os.path.dirname(path), name)


def by_content(data: bytes) -> str:
    """Why a file with these bytes is its owner's alone; "" where nothing says so."""
    return REASON if is_key(data) else KUBECONFIG if is_kubeconfig(data) else ""


def is_key(data: bytes) -> bool:
    """Whether a file's bytes are a private key, alone or behind its certificates."""
    start = data.lstrip()[:32]
    return start.startswith((b"-----BEGIN ", b"PuTTY-User-Key")) and bool(_BEGIN.search(data))


def is_kubeconfig(data: bytes) -> bool:
    """Whether a file's bytes are a kubeconfig with users, whatever it is called; not a script that holds one.

    By its outermost lines: a parser would refuse what kubectl takes, and with that let it travel.
    """
    if b"users" not in data or not (b"Config" in data or b"contexts" in data):
        return False
    if data.lstrip().startswith(b"{"):
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return False
        return isinstance(document, dict) and _opens(
            {key: str(value or "null") for key, value in document.items()}
        )
    outermost = [line for line in data.removeprefix(b"\xef\xbb\xbf").splitlines() if line[:1].strip()]
    if not all(map(_OUTERMOST.match, outermost)):
        return False
    keys = [found for line in outermost if (found := _KEY.match(line))]
    return _opens(
        {found[1].decode("ascii", "replace"): found[2].decode("utf-8", "replace") for found in keys}
    )


def _opens(keys: Mapping[str, str]) -> bool:
    # kubectl takes one that says no kind, too.
    is_config = keys.get("kind", "Config") == "Config" and (
        "kind" in keys or {"clusters", "contexts"} <= keys.keys()
    )
    return is_config and keys.get("users", "null") not in ("[]", "null", "~")
