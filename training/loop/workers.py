"""Worker processes that do not outlive the one that started them."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process


def end_with_parent() -> None:
    """End this process when its parent does, however that ends: an initializer for pools.

    The workers of a killed process would wait for work for ever, or write beside the next run.
    """
    parent = parent_process()
    assert parent is not None, "this is no worker"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
