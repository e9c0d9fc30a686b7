"""A program in place of that which carries out jobs, without torch: the seed of a job says what happens to it."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

# Seeds: the process dies; the job works until it is cancelled; it does not hear; it says where it lies; it fails.
DIES, WORKS, DEAF, TELLS, FAILS = range(1, 6)


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def main() -> None:
    jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    cancelled: set[str] = set()

    def read() -> None:
        for line in sys.stdin:
            message = json.loads(line)
            jobs.put(message) if "job" in message else cancelled.add(message["cancel"])
        cancelled.add("")
        jobs.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (job := jobs.get()) is not None:
        seed, folder = job["options"].get("seed", 0), Path(job["folder"])
        (folder / "result").mkdir()
        say(title="sampling", done=0.5, total=2, unit="sample")
        if seed == DIES:
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / "result" / "00000.png").write_bytes(b"whole")
        if seed == DEAF:
            (folder / "result" / ".tmp-00001.png-1").write_bytes(b"half")
        while seed in (WORKS, DEAF) and (seed == DEAF or not cancelled & {job["job"], ""}):
            time.sleep(0.005)
        if seed == TELLS:
            print('{"done": 1, "to', flush=True)
            say(line=f"{folder}/result: is in {job['run']}, beside /etc/passwd")
        if seed == FAILS:
            say(state="failed", error=f"{folder}/x.png: cannot be read")
        else:
            say(state="cancelled" if seed == WORKS else "done", numbers={"seed": seed})
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
