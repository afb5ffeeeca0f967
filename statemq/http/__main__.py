"""One of the processes of ``statemq serve --workers``; what it serves stands in its environment."""

from __future__ import annotations

import os
import sys

from statemq.errors import StatemqError
from statemq.http.server import SERVING_ENV, serve_child
from statemq.target import sentence_of

if __name__ == "__main__":
    if SERVING_ENV not in os.environ:
        sys.exit("this is a part of `statemq serve`; start that instead")
    try:
        sys.exit(serve_child(os.environ.pop(SERVING_ENV)))
    except StatemqError as error:
        sys.exit(sentence_of(error))
