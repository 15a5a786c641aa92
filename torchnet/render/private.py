"""What in a script's folder is its owner's alone: keys and tokens. A ConfigMap shows them to all who may view it."""

from __future__ import annotations

import re

REASON = "may hold keys, which a ConfigMap would show to others; --secret NAME brings them"

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
# RFC 7468, and OpenSSH's and PuTTY's own. A file of certificates alone may travel, whatever it is called.
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY|PuTTY-User-Key-File-")


def is_private(path: str) -> bool:
    """Whether ``path``, below the script's folder and with slashes, is or is in something that stays with its owner."""
    return bool(_NAMES.search(f"/{path}/"))


def is_key(data: bytes) -> bool:
    """Whether a file's bytes are a private key, alone or behind its certificates."""
    start = data.lstrip()[:32]
    return start.startswith((b"-----BEGIN ", b"PuTTY-User-Key")) and bool(_BEGIN.search(data))
