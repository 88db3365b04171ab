"""Join the Ray cluster at the address given and leave it again; run as a script. The last line says what went wrong."""

import logging
import sys

if __name__ == "__main__":
    import ray

    logging.basicConfig(stream=sys.stderr)
    logging.getLogger("ray.util.client.worker").setLevel(logging.DEBUG)  # only there a client says that it is refused
    try:
        ray.init(address=sys.argv[1], logging_level=logging.CRITICAL, log_to_driver=False)
    except Exception as error:
        sys.exit(" ".join(str(error).split()))
