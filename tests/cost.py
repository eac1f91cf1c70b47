"""What the sensor costs the programs that it watches: runs in a virtual machine whose clock counts instructions.

Prints one line of JSON per operation: processor time per operation without the sensor, with it, without it again, and the time
that the kernel's own statistics (`bpf_stats_enabled`) give for all kernel programs together; then a line per kernel program.
"""

import ctypes
import json
import os
import pathlib
import platform
import resource
import socket
import statistics
import struct
import subprocess
import sys
import time

MUSTER = "/muster/muster"
CONFIG = "/run/muster.toml"
SOCKET = "/run/muster.sock"
ROUNDS = 5
TIMES = {"exec": 200, "write-open": 2000, "connect": 1000}

# `enum bpf_cmd` and the offset of `name` in `struct bpf_prog_info` (uapi/linux/bpf.h); `bpf` in the system call tables.
BPF_PROG_GET_FD_BY_ID = 13
BPF_OBJ_GET_INFO_BY_FD = 15
NAME_OFFSET, NAME_BYTES = 64, 16
SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]


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

    return {"exec": run_true, "write-open": write_open, "connect": refused}


def measure_all():
    return {name: measure(operation, TIMES[name]) for name, operation in all_operations().items()}


def bpf(command, attributes):
    """The system call `bpf`; `attributes` as in `union bpf_attr`."""
    result = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, command, attributes, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result


def name_of(program):
    """The name of a kernel program by its id; the kernel keeps 15 bytes."""
    fd = bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("I", program))
    info = ctypes.create_string_buffer(NAME_OFFSET + NAME_BYTES)
    bpf(BPF_OBJ_GET_INFO_BY_FD, struct.pack("IIQ", fd, len(info), ctypes.addressof(info)))
    os.close(fd)
    return info.raw[NAME_OFFSET:].split(b"\0")[0].decode()


def programs(pid):
    """Runs and nanoseconds by the id of each kernel program that the agent holds."""
    found = {}
    for entry in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            text = entry.read_text()
        except FileNotFoundError:
            # Closed in the meantime: no program, for those are held as long as the agent runs.
            continue
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if "run_cnt" in fields:
            found[int(fields["prog_id"])] = (int(fields["run_cnt"]), int(fields["run_time_ns"]))
    if not found:
        sys.exit("the agent holds no kernel program whose runs the kernel counts")
    return found


def in_kernel(pid):
    """Nanoseconds in all kernel programs per operation, by the kernel's statistics."""
    spent = {}
    for name, operation in all_operations().items():
        operation()
        begin = sum(ns for _, ns in programs(pid).values())
        for _ in range(TIMES[name]):
            operation()
        spent[name] = (sum(ns for _, ns in programs(pid).values()) - begin) / TIMES[name]
    return spent


def main():
    image = pathlib.Path("/muster/image-digest").read_text().strip()
    pathlib.Path(CONFIG).write_text(
        f'[host]\nimage = "{image}"\n[attestation]\ndirectory = "/muster/attestations"\nkeys = ["/muster/key.pub"]\n'
        f'[feed]\nsocket = "{SOCKET}"\n[metrics]\nlisten = ""\n'
    )
    before = measure_all()
    log = open("/run/agent.log", "w")
    agent = subprocess.Popen([MUSTER, "agent", "--config", CONFIG], stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while b'"verified"' not in subprocess.run([MUSTER, "images", "--json", "--socket", SOCKET], capture_output=True).stdout:
        if agent.poll() is not None or time.monotonic() > deadline:
            sys.exit("the agent is not ready; its log:\n" + pathlib.Path("/run/agent.log").read_text())
        time.sleep(0.2)
    during = measure_all()
    statistics_file = pathlib.Path("/proc/sys/kernel/bpf_stats_enabled")
    statistics_file.write_text("1")
    kernel = in_kernel(agent.pid)
    counted = [
        {"program": name_of(key), "runs": runs, "ns_per_run": ns / runs} for key, (runs, ns) in programs(agent.pid).items() if runs
    ]
    statistics_file.write_text("0")
    agent.terminate()
    agent.wait()
    after = measure_all()
    for name in before:
        times = {"before": before[name], "during": during[name], "after": after[name], "kernel": kernel[name]}
        print(json.dumps({"operation": name} | times))
    for program in counted:
        print(json.dumps(program))


main()
