import os
import subprocess
import sys
import time

from promolift import memory
from promolift.memory import PeakMemory, descendants, held_kib

HOLD = "x = bytearray(b'1') * ({mib} << 20); print('held', flush=True); input()"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"


def start(program: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.communicate("\n")


def test_a_grandchilds_memory_counts_and_is_forgotten_once_taken():
    with PeakMemory() as peak:
        process = start(PARENT.format(child=HOLD.format(mib=300)))
        try:
            found = list(descendants(os.getpid()))
            time.sleep(3 * memory.EVERY_S)
        finally:
            end(process)
        assert len(found) >= 2 and process.pid in found
        assert 300 / 1024 < peak.take() < 400 / 1024
        time.sleep(2 * memory.EVERY_S)
        assert peak.take() < 50 / 1024


def test_two_children_count_together():
    with PeakMemory() as peak:
        both = [start(HOLD.format(mib=100)) for _ in range(2)]
        try:
            time.sleep(3 * memory.EVERY_S)
        finally:
            for process in both:
                end(process)
        assert peak.take() > 200 / 1024


def test_a_process_that_has_ended_holds_nothing():
    process = start(HOLD.format(mib=1))
    assert held_kib(process.pid) > 1024
    end(process)
    assert held_kib(process.pid) == 0
    assert list(descendants(process.pid)) == []
