"""A reader in a process of its own: python -m helpers.silence PORT SECONDS.

It prints `reading` when the first event has come, and in the end, as JSON, how many it has got without a gap
and for how long, at most, none came.
"""

from __future__ import annotations

import json
import sys
import time

from helpers.recording import SMALL, Recorder
from helpers.wire import TEXT, Peer

if __name__ == "__main__":
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    with Peer(port, SMALL) as peer:
        peer.until(TEXT)
        print("reading", flush=True)
        with Recorder([peer]) as recorder:
            time.sleep(seconds)
            seen = recorder.seen()
    print(json.dumps({"events": seen.stop - seen.first, "silence": seen.silence}))
