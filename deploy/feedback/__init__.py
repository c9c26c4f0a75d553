"""What a device showed and what came of it: an append-only log that survives power loss, and its way back to training.

```
LOG/
  00000001.log, 00000002.log   segments: checksummed lines (deploy/lines.py), each a JSON object (records.py)
  lock                         held for one commit, or while one segment is rewritten
```

`FeedbackLog` (log.py) appends, `read` (reader.py) reads, `forget` and `prune` (upkeep.py) delete, `export` (export.py)
writes a data set that a recipe reads.
"""

from deploy.feedback.log import FeedbackLog, LogBusyError
from deploy.feedback.reader import read
from deploy.feedback.records import Event, Shown, ShownItem
from deploy.feedback.writer import Limits

__all__ = ["Event", "FeedbackLog", "Limits", "LogBusyError", "Shown", "ShownItem", "read"]
