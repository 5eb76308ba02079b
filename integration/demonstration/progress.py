"""Says what happens, and every few seconds that it still does."""

from __future__ import annotations

import threading
import time

EVERY = 4  # seconds


class Progress:
    def __init__(self, out):
        self.out = out
        self.text, self.since, self.detail = None, 0.0, lambda: ""
        self.lock = threading.Lock()
        threading.Thread(target=self._remind, daemon=True).start()

    def step(self, text, detail=lambda: ""):
        """Begins a step. detail is asked how far it is whenever the step turns out to be a long one."""
        with self.lock:
            self.text, self.since, self.detail = text, time.monotonic(), detail
            print(f"  {text}", file=self.out, flush=True)

    def end(self):
        with self.lock:
            self.text = None

    def _remind(self):
        reminded = 0.0
        while True:
            time.sleep(0.2)
            with self.lock:
                now = time.monotonic()
                if self.text is None or now - max(self.since, reminded) < EVERY:
                    continue
                reminded = now
                print(f"    … {now - self.since:.0f} s {self.detail()}".rstrip(), file=self.out, flush=True)
