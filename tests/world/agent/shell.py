"""A shell with jobs on a terminal, in which a command is run in the background and brought to the foreground.

Its arguments: what the command is run by. It prints in a line of JSON each what came of a job that was started in the background, of one that was brought
to the foreground and was typed to, of one that the key for it stops and that goes on where it was, of one whose words a pipeline prints and whose input ends, of one whose words a pager shows, which reads keys, of one
that asks for a password in a pipeline, of a next program that asks for two while the command waits for a line, of one that was stopped and goes on, and of one that goes on in the background.
"""

import json
import os
import pty
import select
import shlex
import signal
import sys
import termios
import time

RUN = shlex.join(sys.argv[1:])
PATIENCE_S = 10
ASKS = "atonce "
READS = 'read line; echo "read <$line>"'
#: Where the attributes of a terminal have what becomes of output, and of what is typed.
OUTPUT, LOCAL = 1, 3
#: What reads keys from the terminal while its input is a pipeline's, and puts the terminal back.
PAGER = """
import os, sys, termios, tty
keys = os.open("/dev/tty", os.O_RDWR)
before = termios.tcgetattr(keys)
tty.setcbreak(keys)
print("shows", sys.stdin.readline().strip(), flush=True)
print("keys", b"".join(os.read(keys, 1) for _ in range(KEYS)).decode(), flush=True)
termios.tcsetattr(keys, termios.TCSADRAIN, before)
"""
KEYS = "jkjkjkjkq"


def until(terminal, *words):
    """What the terminal shows until all of these were shown, or for a while."""
    shown, deadline = "", time.monotonic() + PATIENCE_S
    while not all(word in shown for word in words) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def told(terminal, line, word):
    """Whether the shell's next command, or what it is running, is answered so, and the shell asks for another then."""
    os.write(terminal, line.encode() + b"\n")
    shown = until(terminal, word, ASKS)
    return word in shown or shown


def begins(terminal, then):
    """Starts one in the background, and waits for its first words and the shell's next question. Gives its number."""
    os.write(terminal, f"{RUN} sh -c 'echo be''gun; {then}' & echo num''ber $!.\n".encode())
    shown = until(terminal, "begun", "number ", ASKS)
    return int(shown.partition("number ")[2].partition(".")[0])


def comes(terminal, line):
    """Brings one to the foreground, and waits until it listens: the terminal is changed for it, as for no shell."""
    os.write(terminal, line.encode() + b"\n")
    deadline = time.monotonic() + PATIENCE_S
    while termios.tcgetattr(terminal)[OUTPUT] & termios.OPOST:
        assert time.monotonic() < deadline, "it does not listen"
        time.sleep(0.02)


shell, terminal = pty.fork()
if shell == 0:
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
os.write(terminal, b"PS1='at''once '\n")
until(terminal, ASKS)
print(json.dumps(told(terminal, f"{RUN} sh -c 'echo beg''un' > /dev/null 2>&1 & wait; echo end''ed $?", "ended 0")))
begins(terminal, READS)
comes(terminal, "fg")
print(json.dumps(told(terminal, "typed", "read <typed>")))
os.write(terminal, f"{RUN} sh -c 'echo re''ady; read line; echo \"read <$line>\"'\n".encode())
until(terminal, "ready")
# As long as it takes to be listened to: a terminal stops nobody by the key before.
deadline = time.monotonic() + PATIENCE_S
while termios.tcgetattr(terminal)[OUTPUT] & termios.OPOST and time.monotonic() < deadline:
    time.sleep(0.02)
os.write(terminal, b"\x1a")
stopped = until(terminal, "Stopped", ASKS)
comes(terminal, "fg")
went_on = told(terminal, "on", "read <on>")
print(json.dumps("Stopped" in stopped and went_on))
os.write(terminal, f"{RUN} sh -c 'echo on''e; echo tw''o; cat' | cat\n".encode())
shown = until(terminal, "one\r\ntwo\r\n")
# A line, and the end of what is typed, as they are meant for the command.
os.write(terminal, b"line\n\4")
print(json.dumps("one\r\ntwo\r\n" in shown and ASKS in until(terminal, ASKS)))
pager = PAGER.replace("KEYS", str(len(KEYS)))
os.write(terminal, f"{RUN} sh -c 'echo wor''ds; exec sleep {PATIENCE_S}' | python3 -c {shlex.quote(pager)}\n".encode())
until(terminal, "shows words")
for key in KEYS:
    # It is looked for in between whether the command wants it.
    time.sleep(0.1)
    os.write(terminal, key.encode())
shown = until(terminal, f"keys {KEYS}")
os.write(terminal, b"\3")
until(terminal, ASKS)
as_it_was = told(terminal, "stty -a | tr -s '; ' '\\n' | grep -cx -e icanon -e echo", "\n2\r")
print(json.dumps(f"keys {KEYS}" in shown and as_it_was))
os.write(terminal, f"{RUN} python3 -c 'import getpass; print(\"to\" + \"ld\", getpass.getpass(\"pass\" + \"word \")[::-1])' | cat\n".encode())
until(terminal, "password ")


def asks_for_keys():
    deadline = time.monotonic() + PATIENCE_S
    while termios.tcgetattr(terminal)[LOCAL] & (termios.ECHO | termios.ICANON) and time.monotonic() < deadline:
        time.sleep(0.02)


asks_for_keys()
# Stopped, and on again, it asks for the same.
os.write(terminal, b"\x1a")
until(terminal, "Stopped", ASKS)
os.write(terminal, b"fg\n")
until(terminal, "fg\r\n")
time.sleep(0.5)
asks_for_keys()
os.write(terminal, b"terces\n")
shown = until(terminal, "told secret", ASKS)
print(json.dumps("told secret" in shown and "terces" not in shown))
twice = "import getpass; print('told', [getpass.getpass('pass' + 'word ')[::-1] for _ in range(2)])"
os.write(terminal, f"{RUN} sh -c 'while read line; do echo took $line >&2; done' | python3 -c {shlex.quote(twice)}\n".encode())
shown = ""
for password in (b"eno\n", b"owt\n"):
    shown += until(terminal, "password ")
    # The command is waiting, and what was typed before is for whoever asked for it.
    time.sleep(0.5)
    os.write(terminal, password)
shown += until(terminal, "told [")
os.write(terminal, b"line\n")
shown += until(terminal, "took line")
os.write(terminal, b"\3")
until(terminal, ASKS)
print(json.dumps(("told ['one', 'two']" in shown and "took line" in shown and "took eno" not in shown and "took owt" not in shown) or shown))
job = begins(terminal, READS)
os.kill(job, signal.SIGSTOP)
while " T " not in open(f"/proc/{job}/stat").read():
    time.sleep(0.02)
os.write(terminal, b"\n")
until(terminal, "Stopped", ASKS)
comes(terminal, "fg")
print(json.dumps(told(terminal, "again", "read <again>")))
job = begins(terminal, READS)
comes(terminal, "fg")
os.kill(job, signal.SIGTSTP)
until(terminal, "Stopped", ASKS)
os.write(terminal, b"bg\n")
until(terminal, ASKS)
comes(terminal, "fg")
print(json.dumps(told(terminal, "once more", "read <once more>")))
os.close(terminal)
os.waitpid(shell, 0)
