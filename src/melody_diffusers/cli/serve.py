"""`melody serve`."""

import argparse
import os
import sys

from .music import load


def serve(args: argparse.Namespace) -> int:
    """`melody serve`: the API and the page, until Ctrl-C."""
    token = os.environ.get("MELODY_TOKEN") or None
    if args.host not in ("127.0.0.1", "localhost", "::1") and token is None:
        raise ValueError(
            f"--host {args.host} lets others reach this server, so it needs a token: set MELODY_TOKEN to a secret."
        )
    try:
        import uvicorn

        from ..serving.app import create_app
    except ImportError as error:
        raise ImportError(f"melody serve needs its extra: pip install 'melody-diffusers[serve]' ({error}).") from error
    pipe, load_seconds = load("MeLoDyPipeline", args)
    app = create_app(pipe, token)
    speed = app.state.engine.warm_up()
    place = f"http://{'[::1]' if args.host == '::1' else args.host}:{args.port}"
    print(f"{place}  ({load_seconds:.1f} s to load; {speed:.1f} times real time; Ctrl-C ends it)", file=sys.stderr)
    uvicorn.run(
        app,
        host=args.host,
        port=args.port,
        log_level="warning",
        server_header=False,
        limit_concurrency=256,
        h11_max_incomplete_event_size=1 << 16,
        timeout_graceful_shutdown=3,
    )
    return 0
