"""Releases on a device: a folder of installed bundles and one atomic pointer to the active one.

```
DIR/
  pointer                     one checksummed line: which release is active, which were good before (pointer.py)
  releases/<digest>/          <digest>: SHA-256 of the bundle's manifest, which names every other byte
    installed.json            when, from where, signed by whom
    bundle/                   the bundle's files
  incoming/                   downloads and what is being unpacked; nothing here is a release
  lock, incoming/lock         of pointer and releases (held for moments); of one install
```

`Releases` (store.py) is what operators do. A server holds a `Serving` (serving.py): which model answers a user
(split.py), opened by `open_active` (opening.py), exchanged while it runs.
"""

from deploy.releases.opening import Opened, open_active
from deploy.releases.serving import Serving
from deploy.releases.store import Releases

__all__ = ["Opened", "Releases", "Serving", "open_active"]
