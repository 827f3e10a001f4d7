"""`python -m feature_repo --lake DIR [--redis-url URL] --registry FILE`: gold features -> the online store; prints one JSON line."""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

from promolift.errors import PromoliftError
from promolift.feast_redis import skip_type_checks


def main() -> int:
    """Materialise; a failure ends with its sentence as the last line of stderr and the status of its class."""
    parser = argparse.ArgumentParser(prog="python -m feature_repo", description=__doc__)
    parser.add_argument("--lake", required=True, help="the lake's root, a folder or s3a://bucket/prefix; reads gold/features")
    known = os.environ.get("PROMOLIFT_REDIS_URL", "")
    parser.add_argument("--redis-url", default=known, required=not known, help="the online store (default: PROMOLIFT_REDIS_URL)")
    parser.add_argument("--registry", type=Path, required=True, help="Feast's registry file; made when missing")
    args = parser.parse_args()
    skip_type_checks()
    from feature_repo.store import materialize  # noqa: PLC0415 (loads Feast)

    try:
        with contextlib.redirect_stdout(sys.stderr):  # Feast prints its progress
            result = materialize(args.lake, args.redis_url, args.registry)
    except PromoliftError as error:
        print(f"feature_repo: {error}", file=sys.stderr)
        return error.exit_status
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
