"""Finds private files in a script's folder (keys, tokens), so that no ConfigMap shows them to all who may view it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping

from torchnet.config.job_spec import JobSpec
from torchnet.k8s.objects.run_identity import key_path
from torchnet.yaml_io import YamlError, read_file

REASON = "may contain keys, which a ConfigMap would expose; use --secret NAME"
KUBECONFIG = "a kubeconfig with credentials for the cluster"
_NAMED = "credentials of the kubeconfig"
_ENV_FILE = "an --env-file; the pods receive its variables without it"

File = tuple[int, int]
"""A file as (device, inode), which is the same for every link and path that leads to it."""

# By name, at any depth: if the script is in the home directory, all of these are in its folder.
_FOLDERS = (
    *(".ssh", ".gnupg", ".aws", ".azure", ".gcloud", ".config/gcloud", ".kube", ".docker"),
    *(".config/gh", ".kaggle", ".huggingface"),
)
# The state of Terraform has all secrets of its resources in plain text.
_BY_SUFFIX = (".p12", ".pfx", ".tfstate", ".tfstate.backup")
_FILES = (
    *(".netrc", ".git-credentials", ".pgpass", ".pypirc", ".npmrc", ".databrickscfg", ".s3cfg", ".boto"),
    *("rclone.conf", ".rclone.conf", ".streamlit/secrets.toml"),
    *(".cache/huggingface/token", ".cache/huggingface/stored_tokens"),
    # Variables of one machine, which often include the API keys of experiment trackers and model hubs. A script gets
    # those that it needs with --env or from a Secret. A missing variable shows at once; an exposed key stays exposed.
    *(".env", ".envrc"),
)
_NAMES = re.compile("|".join(f"/{re.escape(name)}/" for name in (*_FOLDERS, *_FILES)))
# The same for one of several environments: prod.env, .env.local. Example files are bundled: they are committed to show
# the names, usually without values, and a script that reads one might not report that it is missing.
_ENVIRONMENT = re.compile(
    r"(?!.*(?:^|[.])(?:example|sample|template|dist)(?:[.]|$))(?:.*[.]env|[.]env[.].*)", re.I
)
# RFC 7468, and the formats of OpenSSH and PuTTY. A file with only certificates is not private, whatever its name.
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY|PuTTY-User-Key-File-")


# A line of YAML without indentation: a key, an item, a closing bracket, a comment, a directive, a document marker.
_OUTERMOST = re.compile(rb"""["']?[\w./-]+["']?[ \t]*:(?:\s|$)|-(?:\s|$)|[]}#%]|---|\.\.\.""")
_KEY = re.compile(rb"""["']?(\w+)["']?[ \t]*:[ \t]*["']?([^"'#\s]*)""")


def is_private(path: str, *, is_folder: bool = False) -> bool:
    """Whether ``path`` is, or is inside, something that is private by its name.

    Args:
        path: Relative to the script's folder, with slashes.
    """
    is_secret = not is_folder and (
        path.lower().endswith(_BY_SUFFIX) or _ENVIRONMENT.fullmatch(path.rpartition("/")[2])
    )
    return bool(is_secret or _NAMES.search(f"/{path}/"))


def of_the_launch(job: JobSpec, cwd: str, environ: Mapping[str, str]) -> dict[File, str]:
    """Return the private files that this launch itself reads and no script needs, each with the reason to leave it out.

    The reason is "" for a file that is left out without a message. A pod template is not private: the objects contain
    it anyway.
    """
    # The key that the secrets of all runs are derived from; it is below the home directory.
    found = dict.fromkeys((key_path(environ),), "")
    found |= dict.fromkeys(job.env_file, _ENV_FILE)
    # Including the kubeconfigs that this launch does not use: they hold the same user's credentials.
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
    """Yield the files with credentials that a kubeconfig names; their paths are relative to it."""
    try:
        document = read_file(path)
    except YamlError:
        return  # the code that uses the kubeconfig reports the error
    users = document.get("users") if isinstance(document, dict) else None
    for entry in users if isinstance(users, list) else ():
        user = entry.get("user") if isinstance(entry, dict) else None
        for key in ("tokenFile", "client-key"):
            name = user.get(key) if isinstance(user, dict) else None
            if isinstance(name, str) and name:
                yield os.path.join(os.path.dirname(path), name)


def by_content(data: bytes) -> str:
    """Return why a file with this content is private; "" if nothing indicates it."""
    if is_key(data) or is_google_credential(data):
        return REASON
    return KUBECONFIG if is_kubeconfig(data) else ""


def is_key(data: bytes) -> bool:
    """Whether a file's content is a private key, alone or after its certificates."""
    start = data.lstrip()[:32]
    return start.startswith((b"-----BEGIN ", b"PuTTY-User-Key")) and bool(_BEGIN.search(data))


def is_google_credential(data: bytes) -> bool:
    """Whether a file's content is the key of a Google service account, or a user's application default credentials."""
    if not data.lstrip().startswith(b"{") or not any(
        one in data for one in (b"private_key", b"refresh_token")
    ):
        return False
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return False
    secret = {"service_account": "private_key", "authorized_user": "refresh_token"}
    return isinstance(document, dict) and secret.get(str(document.get("type"))) in document


def is_kubeconfig(data: bytes) -> bool:
    """Whether a file's content is a kubeconfig with users; a script that contains a kubeconfig is not.

    The check of YAML reads only the lines without indentation. A parser might reject a file that kubectl accepts, and
    the file would then be bundled.
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
    # kubectl also accepts a file without a kind.
    is_config = keys.get("kind", "Config") == "Config" and (
        "kind" in keys or {"clusters", "contexts"} <= keys.keys()
    )
    return is_config and keys.get("users", "null") not in ("[]", "null", "~")
