"""Processes that are waited for, each with all that it starts, and ended when their time is up."""

import json
import os
import select
import signal
import subprocess
import tempfile
import time


def apart():
    """The environment of a peer: its torch must not find the libtorch that ours is linked to."""
    paths = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(path for path in paths if not os.path.exists(os.path.join(path, "libtorch_cpu.so")))}


def spawn(command, env):
    out, error = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
    try:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=error, start_new_session=True)
    except OSError as told:
        print(told, file=error)
        process = None
    return process, out, error


def end(group):
    """Ends a process with all that it started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def read(file):
    file.seek(0)
    with file:
        return file.read()


def together(spawned, limit, one_for_all=False):
    """Exit code, output and error output of each. When the limit is over all end, and `one_for_all` when one fails."""
    until = time.monotonic() + limit
    processes = [process for process, _, _ in spawned if process]
    late = False
    while not late and any(process.poll() is None for process in processes):
        if one_for_all and (len(processes) < len(spawned) or any(process.poll() for process in processes)):
            break
        late = time.monotonic() > until
        time.sleep(0.05)
    for process in processes:
        end(process.pid)
    results = []
    for process, out, error in spawned:
        code = process.wait() if process else 127
        results.append((code, read(out), read(error) + (f"\nended after {limit} s" if late and code else "")))
    return results


class Server:
    """`bench/peft_step.py --serve`, which has imported what takes long, and forks a process for each line."""

    def __init__(self, command, env):
        # Asked whether there is a GPU, torch shall not start CUDA, which no forked process could use then.
        env = {**env, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process.pid)
        self.process.wait()

    def told(self, limit=None):
        """The next number that it prints; none when the limit is over."""
        ready, _, _ = select.select([self.process.stdout], [], [], limit)
        return int(self.process.stdout.readline()) if ready else None

    def run(self, words, limit):
        with tempfile.NamedTemporaryFile("w+") as out, tempfile.NamedTemporaryFile("w+") as error:
            asked = {"words": words, "out": out.name, "err": error.name}
            try:
                self.process.stdin.write(json.dumps(asked).encode() + b"\n")
                child = self.told()
                code = self.told(limit)
                end(child)
                late = code is None
                code = self.told() if late else code
            except (BrokenPipeError, ValueError):
                return 1, "", f"the server of {self.process.args[1]} has ended"
            return code, out.read(), error.read() + (f"\nended after {limit} s" if late else "")
