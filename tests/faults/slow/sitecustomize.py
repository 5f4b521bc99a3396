"""A disk on which it takes time to remove a table: long enough for who does it to be killed in the middle.

Python imports this by itself where the folder is on its path, so also in Ray's workers.
"""

import os
import time

SECONDS = 0.05
remove = os.remove


def slowly(path, **options):
    if str(path).endswith(".parquet"):
        time.sleep(SECONDS)
    remove(path, **options)


os.remove = slowly
