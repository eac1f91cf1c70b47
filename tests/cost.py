"""What the sensor costs the programs that it watches: runs in a virtual machine whose clock counts instructions.

Prints one line of JSON per operation: processor time per operation without the sensor, with it, without it again, and what the
kernel's own statistics say of each kernel program.
"""

import json
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import time

MUSTER = "/muster/muster"
CONFIG = "/run/muster.toml"
SOCKET = "/run/muster.sock"
ROUNDS = 5


def cpu_ns():
    """Processor time of this process and of its children that ended, kernel part included."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time_ns() + round((children.ru_utime + children.ru_stime) * 1e9)


def run_true():
    pid = os.posix_spawn("/usr/bin/true", ["true"], {})
    os.waitpid(pid, 0)


def write_open():
    os.close(os.open("/var/tmp/cost", os.O_CREAT | os.O_WRONLY | os.O_TRUNC))


def connect(server):
    with socket.socket() as client:
        client.connect(server)


def measure(operation, times):
    operation()
    rounds = []
    for _ in range(ROUNDS):
        begin = cpu_ns()
        for _ in range(times):
            operation()
        rounds.append((cpu_ns() - begin) / times)
    return statistics.median(rounds)


def all_operations():
    # A port that nobody listens on: the connect is refused, and seen.
    def refused():
        try:
            connect(("127.0.0.1", 9))
        except ConnectionRefusedError:
            pass

    return {
        "exec": measure(run_true, 200),
        "write-open": measure(write_open, 2000),
        "connect": measure(refused, 1000),
    }


def programs(pid):
    """Name, run count and run time of each kernel program that the agent holds."""
    found = {}
    for entry in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir():
        fields = dict(line.split(":", 1) for line in entry.read_text().splitlines() if ":" in line)
        if "run_cnt" in fields and int(fields["run_cnt"]):
            key = int(fields["prog_id"])
            found[key] = {"runs": int(fields["run_cnt"]), "ns_per_run": int(fields["run_time_ns"]) / int(fields["run_cnt"])}
    return [found[key] | {"id": key} for key in sorted(found)]


def main():
    image = pathlib.Path("/muster/image-digest").read_text().strip()
    pathlib.Path(CONFIG).write_text(
        f'[host]\nimage = "{image}"\n[attestation]\ndirectory = "/muster/attestations"\nkeys = ["/muster/key.pub"]\n'
        f'[feed]\nsocket = "{SOCKET}"\n[metrics]\nlisten = ""\n'
    )
    before = all_operations()
    log = open("/run/agent.log", "w")
    agent = subprocess.Popen([MUSTER, "agent", "--config", CONFIG], stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while b'"verified"' not in subprocess.run([MUSTER, "images", "--json", "--socket", SOCKET], capture_output=True).stdout:
        if agent.poll() is not None or time.monotonic() > deadline:
            sys.exit("the agent is not ready; its log:\n" + pathlib.Path("/run/agent.log").read_text())
        time.sleep(0.2)
    during = all_operations()
    statistics_file = pathlib.Path("/proc/sys/kernel/bpf_stats_enabled")
    statistics_file.write_text("1")
    all_operations()
    counted = programs(agent.pid)
    statistics_file.write_text("0")
    agent.terminate()
    agent.wait()
    after = all_operations()
    for name in before:
        print(json.dumps({"operation": name, "before": before[name], "during": during[name], "after": after[name]}))
    for program in counted:
        print(json.dumps({"program": program}))


main()
