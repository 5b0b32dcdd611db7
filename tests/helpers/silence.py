"""A reader in a process of its own: python -m helpers.silence PORT SECONDS.

It prints `reading` when the first event has come, and in the end, as JSON, how many it has got without a gap
and for how long, at most, none came.
"""

from __future__ import annotations

import json
import sys
import time

from helpers.recording import SMALL, Recorder
from helpers.waiting import until
from helpers.wire import Peer

if __name__ == "__main__":
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    # The recorder reads from the start: what a peer has read ahead, perhaps half a frame, it would not get.
    with Peer(port, SMALL) as peer, Recorder([peer]) as recorder:
        until(lambda: recorder.received > 0)
        print("reading", flush=True)
        time.sleep(seconds)
        seen = recorder.seen()
    print(json.dumps({"events": seen.stop - seen.first, "silence": seen.silence}))
