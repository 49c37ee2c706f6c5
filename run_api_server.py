"""Starts the API server: `python run_api_server.py [--host H] [--port P] [--reload]`. CONFIG.md has the defaults."""

from __future__ import annotations

import argparse

from vision_model_repo.serving import ONE_PROCESS, read_settings, serve


def main() -> None:
    settings = read_settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default=settings.api_host, help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=settings.api_port, help="port to listen on (%(default)s)")
    parser.add_argument("--reload", action="store_true", help="restart when a source file changes")
    parser.add_argument("--workers", type=int, default=1, help="1; more are refused with the reason")
    arguments = parser.parse_args()
    if arguments.workers != 1:
        parser.error(ONE_PROCESS.format(workers=arguments.workers))
    serve(read_settings(api_host=arguments.host, api_port=arguments.port), reload=arguments.reload)


if __name__ == "__main__":
    main()
